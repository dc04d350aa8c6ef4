"""Hyperparameter search: an Optuna study whose trials are trainings of one run."""
