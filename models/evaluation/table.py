"""The rows of the table of metrics, by name: these, and every baseline that was trained by the name of its spec."""

MEANS, POPULARITY = "means", "popularity"
CANDIDATE_ROW, CHAMPION_ROW, CHANCE = "candidate", "champion", "chance"
UNTRAINED = (MEANS, POPULARITY)
"""Rows whose scores only order items; those of all others are probabilities."""
RESERVED = frozenset({CANDIDATE_ROW, CHAMPION_ROW, CHANCE, *UNTRAINED})
"""Names that no spec may have."""
