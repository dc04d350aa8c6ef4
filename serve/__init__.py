"""What answers for a model: needs no TensorFlow and nothing from `pipeline`."""
