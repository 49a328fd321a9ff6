"""One module per command: read, compute, check, write."""
