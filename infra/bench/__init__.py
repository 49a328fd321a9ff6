"""Speeds, measured on stacks of their own: `make bench-serving`, `make bench-stream`."""
