"""Training: from a configuration to trained, calibrated and exported weights."""
