"""Ranking models on data that others have divided: how good they are beside published rows."""
