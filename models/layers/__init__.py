"""Keras layers of the model plane, one per file."""
