"""Moves a registered version to the model server, and the champion alias with it."""
