"""What containers run of their own: preparations before a first start, and health checks."""
