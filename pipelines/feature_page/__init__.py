"""The page that lists every feature: what it is, where it comes from, and what it looks like."""
