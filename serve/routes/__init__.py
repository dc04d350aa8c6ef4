"""The paths of the service, one module for each group; they validate, delegate and shape."""
