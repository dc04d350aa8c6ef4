"""The pipeline, from raw files to a registered model: stages, commands, and their parts."""
