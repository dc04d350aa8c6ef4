"""Data drift: compare recent predictions with validation images: `python -m monitoring.drift`."""
