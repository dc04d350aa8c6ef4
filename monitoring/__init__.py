"""Monitoring of the service and the pipeline: drift job, pipeline exporter, alerts, dashboards."""
