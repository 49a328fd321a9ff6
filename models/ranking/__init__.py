"""Ranking models: each a plain class with one frozen typed config."""
