"""How long evaluation takes over a million predictions: all metrics of one model, then all of its slices."""

from __future__ import annotations

import statistics
import time

import numpy as np

from feature_repo.contracts.objectives import PROBABILITY
from infra.bench.results import Figure
from models.dataset import TEST, Split
from models.evaluation.metrics import of_scores
from models.evaluation.slices import slice_rows, slices_record
from models.gates.margins import read_margins

ROWS = 1_000_000
_USERS, _BINS, _ROUNDS, _SEED = 50_000, 10, 3, 1
_TARGET_S = 2.0


def metrics_figures() -> list[Figure]:
    """Return the median seconds of the metrics of made-up predictions, and of those of their slices."""
    split, scores = _made_up()
    slices = slice_rows(read_margins("ranking").slices, split.features, ())
    everything, by_slice = [], []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        of_scores(split, scores, PROBABILITY.metrics, _BINS)
        everything.append(time.perf_counter() - began)
        began = time.perf_counter()
        slices_record(slices, split.labels, split.users, {"candidate": scores}, {"candidate": PROBABILITY.metrics})
        by_slice.append(time.perf_counter() - began)
    of = f"seconds of {{}} over {ROWS:,} predictions"
    return [
        Figure(of.format("all metrics"), statistics.median(everything), "s", "lower", _TARGET_S, hard=True),
        Figure(of.format(f"the metrics of {len(slices)} kinds of slices"), statistics.median(by_slice), "s", "lower"),
    ]


def _made_up() -> tuple[Split, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Return rows, and probabilities of which the labels are drawn."""
    random = np.random.default_rng(_SEED)
    scores = random.beta(2, 2, ROWS)
    users = random.integers(0, _USERS, ROWS)
    features = {
        "user_event_count": random.integers(0, 500, _USERS)[users],
        "item_event_count": random.integers(0, 500, ROWS),
    }
    labels = (random.random(ROWS) < scores).astype(np.int64)
    return Split(TEST, features, labels, np.ones(ROWS, np.float32), users, {}), scores
