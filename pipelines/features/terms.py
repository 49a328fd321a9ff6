"""Which terms of an attribute users' counts are kept for."""

MOST_TERMS = 64
"""So many terms of an attribute are counted for each user: those that most items have, ties by name; of a derived
attribute those that any item had first (`versions.first_terms`)."""
