"""NDCG among the candidates, by which other learners are compared, against one computed question by question."""

from __future__ import annotations

import numpy as np
import pytest

from infra.bench.lists_learners import ndcg
from models.dataset import Split


def _split(groups, labels, events):
    rows = len(labels)
    return Split(
        "test",
        {"user_event_count": np.asarray(events)},
        np.asarray(labels),
        np.ones(rows, np.float32),
        np.zeros(rows, np.int64),
        {"group_id": np.asarray(groups)},
    )


def _by_hand(groups, labels, scores, events):
    found = []
    for group in set(groups):
        own = [n for n, each in enumerate(groups) if each == group and events[n] >= 5]
        ranked = sorted(own, key=lambda n: -scores[n])
        gain = sum(labels[n] / np.log2(place + 2) for place, n in enumerate(ranked[:10]))
        best = sum(1 / np.log2(place + 2) for place in range(min(10, sum(labels[n] for n in own))))
        if best:
            found.append(gain / best)
    return np.mean(found)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_mean_over_questions_with_an_answer_of_users_with_a_history(seed):
    random = np.random.default_rng(seed)
    groups = random.integers(0, 8, 150)
    events = np.where(groups % 3 == 0, 4, 50)
    labels = (random.random(150) < 0.15).astype(np.int64)
    scores = random.permutation(150).astype(np.float64)
    found = ndcg(_split(groups, labels, events), scores)
    assert found == pytest.approx(_by_hand(groups.tolist(), labels.tolist(), scores.tolist(), events.tolist()))
