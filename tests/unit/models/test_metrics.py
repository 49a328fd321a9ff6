"""Metrics against hand-computed examples, properties and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from models.errors import NotFiniteError
from models.evaluation import baselines, metrics


def _array(*values):
    return np.array(values)


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ((0, 0, 1, 1), (0.1, 0.4, 0.35, 0.8), 0.75),
        ((0, 1), (0.5, 0.5), 0.5),
        ((1, 0), (0.2, 0.9), 0.0),
        ((0, 1, 1), (0.1, 0.2, 0.1), 0.75),
    ],
)
def test_auc_by_hand(labels, scores, expected):
    assert metrics.auc(_array(*labels), _array(*scores)) == pytest.approx(expected)


def test_auc_of_one_class_is_undefined():
    assert np.isnan(metrics.auc(_array(1, 1), _array(0.1, 0.2)))


def test_scores_that_are_no_numbers_are_refused_and_not_ranked():
    assert metrics.check_finite(_array(0.1, 0.2), "lr").tolist() == [0.1, 0.2]
    for wrong in (np.nan, np.inf):
        with pytest.raises(NotFiniteError, match=r"scores of lr: expected numbers, received (nan|inf) in 1 of 2 rows"):
            metrics.check_finite(_array(0.1, wrong), "lr")


def test_gauc_by_hand():
    # User 0: AUC 1 over 2 rows. User 1: AUC 0.5 over 4 rows. User 2 has one class and does not count.
    users = _array(0, 0, 1, 1, 1, 1, 2)
    labels = _array(0, 1, 0, 1, 0, 1, 1)
    scores = _array(0.1, 0.9, 0.1, 0.2, 0.4, 0.3, 0.5)
    # User 1 pairs (positive above negative): .2>.1 yes, .2>.4 no, .3>.1 yes, .3>.4 no: 2 of 4.
    assert metrics.gauc(labels, scores, users) == pytest.approx((1.0 * 2 + 0.5 * 4) / 6)


def test_log_loss_by_hand():
    assert metrics.log_loss(_array(1, 0), _array(0.5, 0.25)) == pytest.approx(-(np.log(0.5) + np.log(0.75)) / 2)


def test_calibration_by_hand():
    measured = metrics.calibration(_array(0, 1, 1, 1), _array(0.2, 0.4, 0.6, 0.8), bins=2)
    assert measured.predicted == pytest.approx([0.3, 0.7])
    assert measured.observed == pytest.approx([0.5, 1.0])
    assert measured.expected_calibration_error == pytest.approx((0.2 + 0.3) / 2)
    assert measured.observed_over_expected == pytest.approx(3 / 2)


_ROWS = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 9), st.integers(0, 4)), min_size=2, max_size=60)


@given(_ROWS)
@settings(deadline=None)
def test_agreement_with_scikit_learn(rows):
    labels, tenths, users = (np.array(column) for column in zip(*rows, strict=True))
    scores = tenths / 10
    assert metrics.log_loss(labels, scores) == pytest.approx(sklearn_log_loss(labels, scores, labels=[0, 1]))
    if len(set(labels)) == 2:
        assert metrics.auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    total = weight = 0.0
    for user in set(users.tolist()):
        mine = users == user
        if len(set(labels[mine])) == 2:
            total += roc_auc_score(labels[mine], scores[mine]) * mine.sum()
            weight += mine.sum()
    if weight:
        assert metrics.gauc(labels, scores, users) == pytest.approx(total / weight)
    else:
        assert np.isnan(metrics.gauc(labels, scores, users))


@given(_ROWS, st.floats(0.1, 3))
@settings(deadline=None)
def test_auc_depends_on_order_alone_and_turns_round_with_it(rows, power):
    labels, tenths, _ = (np.array(column) for column in zip(*rows, strict=True))
    area = metrics.auc(labels, tenths)
    if not np.isnan(area):
        assert metrics.auc(labels, (tenths / 10) ** power) == pytest.approx(area)
        assert metrics.auc(labels, -tenths) == pytest.approx(1 - area)


def test_roc_of_few_points_has_the_same_area():
    random = np.random.default_rng(1)
    labels, scores = random.integers(0, 2, 300), random.random(300)
    x, y = metrics.roc(labels, scores, points=1000)
    assert np.trapezoid(y, x) == pytest.approx(metrics.auc(labels, scores))
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)


def test_means_baseline_by_hand():
    features = {
        "user_event_count": np.array([5, 0, 5]),
        "user_value_mean": np.array([5.0, -1.0, 0.0]),
        "item_event_count": np.array([15, 0, 0]),
        "item_value_mean": np.array([3.0, -1.0, -1.0]),
    }
    scores = baselines.means(features, prior=4.0)
    assert scores == pytest.approx([(25 + 20) / 10 + (45 + 20) / 20, 8.0, 20 / 10 + 4])
    assert baselines.popularity(features).tolist() == [15, 0, 0]
