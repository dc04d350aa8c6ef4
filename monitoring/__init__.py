"""What watches the service and the pipeline; knows their metrics by name only."""
