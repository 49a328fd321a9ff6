"""The data plane: sources to features, training sets and the online store."""
