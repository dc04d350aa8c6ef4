"""The dashboards as code: `python -m monitoring.grafana` writes them as Grafana reads them."""
