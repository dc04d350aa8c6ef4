"""Jobs as processes: how they end, their progress bars and their MLflow runs."""
