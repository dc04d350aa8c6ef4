"""The processes of the service: supervisor, workers, and their HTTP protocol."""
