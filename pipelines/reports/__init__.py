"""Reports for people: HTML that needs nothing else."""
