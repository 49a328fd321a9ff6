"""Airflow plugins; each file is loaded by its path."""
