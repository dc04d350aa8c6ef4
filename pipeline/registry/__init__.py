"""MLflow: runs, registered versions, promotion gates, retraining triggers."""
