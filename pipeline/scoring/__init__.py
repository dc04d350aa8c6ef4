"""Pictures of users, read as the service reads them, and the report on them."""
