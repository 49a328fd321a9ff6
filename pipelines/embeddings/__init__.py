"""Item embeddings for recall, on Spark."""
