"""What each objective learns and serves, against loops that say it once more."""

from __future__ import annotations

import numpy as np
import pytest

from feature_repo.contracts.objectives import OBJECTIVES
from models.dataset import Split
from models.errors import DatasetError
from models.objectives import learned

RANDOM = np.random.default_rng(3)
ROWS = 60


def _split(*, labels=None, values=None, drawn=None, groups=None, name="train"):
    labels = RANDOM.integers(0, 2, ROWS) if labels is None else np.asarray(labels)
    rows = len(labels)
    targets = {
        "value": np.full(rows, 3.0, np.float32) + labels if values is None else np.asarray(values, np.float32),
        "is_drawn": np.zeros(rows, np.int64) if drawn is None else np.asarray(drawn),
        "group_id": np.arange(rows) // 5 if groups is None else np.asarray(groups),
    }
    weights = np.linspace(0.5, 1, rows, dtype=np.float32)
    return Split(name, {}, labels, weights, np.zeros(rows, np.int64), targets)


def _losses(name, split, logits):
    ours = learned(OBJECTIVES[name])
    return np.asarray(ours.loss(ours.targets(split), np.asarray(logits, np.float32)))


def _log_loss(label, logit):
    return -(label * np.log(1 / (1 + np.exp(-logit))) + (1 - label) * np.log(1 / (1 + np.exp(logit))))


def test_probability_is_the_log_loss_and_a_sigmoid():
    split, logits = _split(), RANDOM.normal(size=(ROWS, 1))
    expected = [_log_loss(label, logit) for label, logit in zip(split.labels, logits[:, 0], strict=True)]
    np.testing.assert_allclose(_losses("probability", split, logits), expected, rtol=1e-5)
    scores = learned(OBJECTIVES["probability"]).scores(logits)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits[:, 0])), rtol=1e-6)


def test_regression_learns_values_and_nothing_of_drawn_rows():
    split = _split(values=RANDOM.integers(1, 6, ROWS), drawn=np.arange(ROWS) % 3 == 0)
    logits = RANDOM.normal(size=(ROWS, 1))
    np.testing.assert_allclose(
        _losses("regression", split, logits), (split.targets["value"] - logits[:, 0]) ** 2, rtol=1e-4
    )
    weights = learned(OBJECTIVES["regression"]).weights(split)
    np.testing.assert_array_equal(weights > 0, np.arange(ROWS) % 3 != 0)


def test_the_odds_of_weighted_logistic_regression_are_the_mean_watch_time():
    """Covington et al. 2016, section 4.2: with k positives of T_i seconds among n, e^(w.x+b) is sum(T) / (n - k)."""
    seconds = np.where(np.arange(ROWS) % 4 == 0, RANDOM.uniform(10, 90, ROWS), 0)
    split = _split(labels=(seconds > 0).astype(int), values=seconds)
    ours = learned(OBJECTIVES["watch_time"])
    weights = np.where(seconds > 0, seconds, 1) * split.weights
    np.testing.assert_allclose(ours.weights(split), weights, rtol=1e-6)
    odds = (weights * split.labels).sum() / (weights * (1 - split.labels)).sum()
    biases = np.log(odds) + np.linspace(-1, 1, 41)
    losses = [(weights * _losses("watch_time", split, np.full((ROWS, 1), bias))).sum() for bias in biases]
    assert np.argmin(losses) == 20, "the loss is least where the odds are the expected time"
    np.testing.assert_allclose(ours.scores(np.full((1, 1), biases[20])), [odds], rtol=1e-5)


def test_pairs_are_of_one_group():
    split, logits = _split(), RANDOM.normal(size=(ROWS, 1))
    groups, scores = split.targets["group_id"], logits[:, 0]
    expected = []
    for row in range(ROWS):
        others = [o for o in range(ROWS) if groups[o] == groups[row] and split.labels[row] > split.labels[o]]
        losses = [np.log1p(np.exp(-(scores[row] - scores[other]))) for other in others]
        expected.append(np.mean(losses) if losses else 0.0)
    np.testing.assert_allclose(_losses("pairwise", split, logits), expected, rtol=1e-5, atol=1e-7)


def test_a_list_is_one_group():
    split, logits = _split(), RANDOM.normal(size=(ROWS, 1))
    groups, scores = split.targets["group_id"], logits[:, 0]
    expected = []
    for row in range(ROWS):
        own = groups == groups[row]
        counts = split.labels[row] == 1 and (split.labels[own] == 0).any()
        expected.append(np.log(np.exp(scores[own]).sum()) - scores[row] if counts else 0.0)
    np.testing.assert_allclose(_losses("listwise", split, logits), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["pairwise", "listwise"])
def test_losses_of_order_do_not_mind_a_group_s_level(name):
    split, logits = _split(), RANDOM.normal(size=(ROWS, 1))
    moved = logits + split.targets["group_id"][:, None] * 3.0
    np.testing.assert_allclose(_losses(name, split, logits), _losses(name, split, moved), rtol=1e-3, atol=1e-4)


def test_two_heads_are_one_score():
    drawn = np.arange(ROWS) % 3 == 0
    split = _split(labels=np.where(drawn, 0, RANDOM.integers(0, 2, ROWS)), drawn=drawn)
    logits = RANDOM.normal(size=(ROWS, 2))
    expected = [
        _log_loss(1 - out, taken) + (0 if out else _log_loss(label, liked))
        for out, label, (taken, liked) in zip(drawn, split.labels, logits, strict=True)
    ]
    np.testing.assert_allclose(_losses("taken_and_liked", split, logits), expected, rtol=1e-4)
    scores = learned(OBJECTIVES["taken_and_liked"]).scores(logits)
    np.testing.assert_allclose(scores, np.prod(1 / (1 + np.exp(-logits)), axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "split", "said"),
    [
        ("probability", _split(labels=[1] * 9), "expected rows of both classes, received 9 rows, 9 of them positive"),
        ("probability", _split(labels=[]), "received 0 rows"),
        ("regression", _split(values=[4] * ROWS), "expected rows of different values"),
        ("watch_time", _split(labels=[0] * 9), "received 9 rows, 0 of them positive"),
        ("pairwise", _split(labels=[0, 1], groups=[0, 1]), "expected groups with rows of both classes, received 2"),
        ("listwise", _split(labels=[1, 1], groups=[0, 0]), "expected rows of both classes"),
        ("taken_and_liked", _split(), "of them taken; a training set that has drawn rows"),
        ("taken_and_liked", _split(labels=[0, 1, 1], drawn=[1, 0, 0]), "liked of those taken"),
    ],
)
def test_rows_of_which_nothing_can_be_learned_are_refused(name, split, said):
    with pytest.raises(DatasetError, match=f"split train: .*{said}"):
        learned(OBJECTIVES[name]).check(split)


@pytest.mark.parametrize(("name", "column"), [("regression", "value"), ("listwise", "group_id")])
def test_a_training_set_of_before_names_the_remedy(name, column):
    split = _split()
    del split.targets[column]
    with pytest.raises(DatasetError, match=f"expected a column {column}, .* build the training set anew"):
        learned(OBJECTIVES[name]).check(split)


def _double_loop(labels, groups, scores):
    """Return the listwise loss of each row, and its gradient summed over rows, as the definition says them."""
    losses, gradient = np.zeros(len(scores)), np.zeros(len(scores))
    for row in range(len(scores)):
        own = [other for other in range(len(scores)) if groups[other] == groups[row]]
        if labels[row] != 1 or all(labels[other] == 1 for other in own):
            continue
        highest = max(scores[other] for other in own)
        shares = {other: np.exp(scores[other] - highest) for other in own}
        losses[row] = np.log(sum(shares.values())) + highest - scores[row]
        for other in own:
            gradient[other] += shares[other] / sum(shares.values())
        gradient[row] -= 1
    return losses, gradient


@pytest.mark.parametrize("spread", [0.1, 3.0, 60.0])
def test_the_listwise_loss_and_its_gradient_are_those_of_the_definition(spread):
    """Groups of any size, of one class, and with codes far from 0, in any order: a batch has some of a split's."""
    import tensorflow as tf

    random = np.random.default_rng(int(spread * 10))
    groups = random.permutation(np.repeat(random.choice(1_000_000, 23, replace=False), random.integers(1, 30, 23)))
    some = np.unique(groups)
    labels = (random.random(len(groups)) < 0.2).astype(np.float32)
    labels[groups == some[0]], labels[groups == some[1]] = 1, 0
    logits = tf.constant(random.normal(0, spread, (len(groups), 1)), tf.float32)
    targets = tf.constant(np.stack([labels, groups], axis=1), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = learned(OBJECTIVES["listwise"]).loss(targets, logits)
    expected, gradient = _double_loop(labels, groups, logits[:, 0].numpy().astype(np.float64))
    np.testing.assert_allclose(losses, expected, rtol=1e-6, atol=1e-6 * max(spread, 1))
    np.testing.assert_allclose(tape.gradient(losses, logits)[:, 0], gradient, rtol=1e-4, atol=1e-5)
    assert not losses[groups == some[0]].numpy().any()
    assert not losses[groups == some[1]].numpy().any()


@pytest.mark.parametrize("name", ["pairwise", "listwise"])
def test_a_mean_over_rows_is_one_over_groups_however_many_rows_they_have(name):
    few, many = (
        _split(labels=([1] + [0] * others) * 8, groups=np.repeat(np.arange(8), 1 + others)) for others in (1, 9)
    )
    for split in (few, many):
        split.weights[:] = 1
        weights = learned(OBJECTIVES[name]).weights(split)
        assert np.mean(weights) == pytest.approx(1)
        losses = np.where(split.labels == 1, 0.7, 0.0)
        assert np.mean(weights * losses) == pytest.approx(0.7)


@pytest.mark.parametrize("name", ["pairwise", "listwise"])
def test_a_group_of_many_positive_rows_counts_as_much_as_one_of_few(name):
    groups = np.repeat([30, 10, 20, 40], [12, 3, 9, 5])
    labels = (np.arange(len(groups)) % 3 == 0).astype(int)
    labels[groups == 40] = 0
    split = _split(labels=labels, groups=groups)
    weights = learned(OBJECTIVES[name]).weights(split)
    sums = {group: weights[groups == group].sum() for group in (10, 20, 30)}
    assert list(sums.values()) == pytest.approx([len(groups) / 3] * 3)
    assert not weights[labels == 0].any(), "and a group of one class has none"
    own = (groups == 30) & (labels == 1)
    expected = split.weights[own] / split.weights[own].sum()
    np.testing.assert_allclose(weights[own] / weights[own].sum(), expected, rtol=1e-5)
