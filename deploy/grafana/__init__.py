"""Grafana's data source and dashboards; the dashboards are written by ``python -m deploy.grafana``."""
