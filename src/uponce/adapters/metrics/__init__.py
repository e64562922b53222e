"""Metrics, by prometheus_client."""
