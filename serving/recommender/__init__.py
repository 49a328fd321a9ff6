"""Answers users: recall, features, ranking, re-ranking."""
