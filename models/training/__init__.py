"""Fitting a model, and the job that does it."""
