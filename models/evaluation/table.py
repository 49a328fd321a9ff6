"""The rows of the table of metrics, by name."""

from models.evaluation.baselines import MEANS, POPULARITY
from models.ranking.catalogue import BASELINE

CANDIDATE_ROW, CHAMPION_ROW, BASELINE_ROW = "candidate", "champion", BASELINE.name
PROBABILITIES = (CANDIDATE_ROW, CHAMPION_ROW, BASELINE_ROW)
"""Rows whose scores are probabilities."""
UNTRAINED = (MEANS, POPULARITY)
"""Rows whose scores only order items."""
