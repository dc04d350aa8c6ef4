"""From raw files to a registered model: one module per stage, and what the stages share."""
