"""Grafana's data source and dashboards; ``python -m deploy.grafana`` generates the dashboards."""
