"""The feature repository: what the planes agree on (`contracts`) and what Feast is told of it."""
