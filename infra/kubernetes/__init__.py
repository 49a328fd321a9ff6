"""Manifests, and what Airflow needs to know to run each job in its plane's image."""
