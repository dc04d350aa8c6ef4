"""The search for settings: an Optuna study whose trials are trainings of one run."""
