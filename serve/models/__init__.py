"""Which model answers: the predictor, the bundle cache and the registry."""
