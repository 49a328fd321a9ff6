"""Peers of the ranking models: other people's implementations, run in an environment of their own."""
