"""MLflow: runs, registered versions, promotion gates, rollback, retraining triggers."""
