"""Boosted trees in the graph, and the weights of their leaves."""

from __future__ import annotations

import builtins
from dataclasses import replace

import lightgbm
import numpy as np
import pytest

from feature_repo.contracts.objectives import OBJECTIVES
from feature_repo.contracts.signatures import ranking
from models.dataset import TRAIN, VALID
from models.encoding import build_encoder
from models.errors import BuildError
from models.layers.tree_leaves import TreeLeaves
from models.ranking import gbdt_lr
from models.ranking.gbdt_lr import GBDTLR, GBDTLRConfig, at_most, read_forest
from models.training.fit import FitContext, Fitted
from models.training.keras_loop import FitConfig
from tests.gradients import unreached
from tests.movielens import MOVIELENS

FEW = ("user_event_count", "user_value_mean", "item_event_count", "item_value_mean", "user_top_genres")
QUICK = GBDTLRConfig(trees=15, fit=FitConfig(batch_size=512, epochs=2))
TINY = np.float32(1e-35)


def _numbers(random, rows):
    """Return columns that trees are fitted to badly: steps, zeros, neighbouring floats, and what is nearly 0."""
    one = np.float32(1)
    neighbours = np.array([one, *(one + np.float32(2**-23) * step for step in (1, 2, 3, 4))], np.float32)
    near = np.array([-1, -2 * TINY, -TINY, 0, TINY, 2 * TINY, 1], np.float32)
    return np.stack(
        [
            random.normal(size=rows),
            np.round(random.normal(size=rows), 1),
            np.maximum(random.normal(size=rows) - 1, 0),
            random.integers(0, 2, rows),
            random.choice(neighbours, rows),
            random.choice(near, rows),
        ],
        axis=1,
    ).astype(np.float32)


@pytest.fixture(scope="module")
def booster():
    random = np.random.default_rng(3)
    rows = _numbers(random, 3000)
    signal = rows[:, 0] + rows[:, 1] * rows[:, 3] + rows[:, 2] + (rows[:, 4] - 1) * 2**22 + np.sign(rows[:, 5])
    labels = (signal + random.normal(size=len(rows)) > 0.5).astype(np.int64)
    params = {"objective": "binary", "num_leaves": 14, "min_data_in_leaf": 5, "use_missing": False, "verbosity": -1}
    return lightgbm.train(params | {"num_threads": 1, "deterministic": True}, lightgbm.Dataset(rows, labels), 60)


def _splits(booster):
    """Return the column and the threshold of every split."""
    left = [each["tree_structure"] for each in booster.dump_model()["tree_info"]]
    while left:
        node = left.pop()
        if "split_feature" in node:
            yield node["split_feature"], node["threshold"]
            left += [node["left_child"], node["right_child"]]


def _leaves(forest, rows):
    layer = TreeLeaves(**forest.layer)
    layer.set_weights(forest.weights)
    return np.array(layer(rows))


def test_leaves_are_lightgbms_at_every_threshold_and_beside_it(booster):
    random = np.random.default_rng(4)
    splits = list(_splits(booster))
    assert {column for column, _ in splits} == set(range(6))
    columns, thresholds = (np.array(each) for each in zip(*splits, strict=True))
    nearest = thresholds.astype(np.float32)
    probes = [nearest, np.nextafter(nearest, np.float32(-np.inf)), np.nextafter(nearest, np.float32(np.inf))]
    rows = _numbers(random, 3 * len(splits))
    rows[np.arange(len(rows)), np.tile(columns, 3)] = np.concatenate(probes)
    rows = np.concatenate([rows, _numbers(random, 4000), 50 * _numbers(random, 100)])
    forest = read_forest(booster)
    expected = booster.predict(rows, pred_leaf=True, num_threads=1)
    found = _leaves(forest, rows)
    assert found.shape == (len(rows), 60)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)
    raw = forest.values[np.arange(60), found].sum(axis=1)
    np.testing.assert_allclose(raw, booster.predict(rows, raw_score=True, num_threads=1), atol=1e-6)
    assert (nearest > thresholds).any(), "the nearest float32 would be wrong"


def test_float32_thresholds_part_float32_numbers_as_float64_ones_do():
    random = np.random.default_rng(5)
    thresholds = np.concatenate([random.normal(size=5000), [2.0**-24 + 1, -(2.0**-24) - 1, 3e38, -3e38]])
    rounded = at_most(thresholds)
    assert rounded.dtype == np.float32
    for step in (-np.inf, 0, np.inf):
        beside = np.nextafter(rounded, np.float32(step)) if step else rounded
        np.testing.assert_array_equal(beside <= rounded, beside.astype(np.float64) <= thresholds)
    assert at_most(np.array([1e300])) == np.finfo(np.float32).max


def test_trees_of_all_sizes_stand_in_one_layer():
    """By hand: one split, none, and three splits in a chain."""
    nodes = 7  # three splits, four leaves
    columns, thresholds = np.zeros((3, nodes), np.int32), np.zeros((3, nodes), np.float32)
    lower = np.tile(np.array([3, 3, 3, 3, 4, 5, 6]), (3, 1))
    upper = lower.copy()
    columns[0, 0], thresholds[0, 0], upper[0, 0] = 1, 2.0, 4
    thresholds[2, :3], lower[2, :3], upper[2, :3] = [3.0, 2.0, 1.0], [1, 2, 3], [4, 5, 6]
    offsets = np.arange(3)[:, None] * nodes
    layer = TreeLeaves(3, 4, 3)
    layer.set_weights([columns.ravel(), thresholds.ravel(), (lower + offsets).ravel(), (upper + offsets).ravel()])
    rows = np.array([[0.5, 2.0], [1.5, 2.5], [2.5, 0.0], [9.0, 9.0]], np.float32)
    np.testing.assert_array_equal(layer(rows), [[0, 0, 0], [1, 0, 3], [0, 0, 2], [1, 0, 1]])
    again = TreeLeaves.from_config(layer.get_config())
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(rows), layer(rows))
    assert not layer.trainable_weights


def test_a_forest_without_a_split_is_a_constant():
    rows = np.random.default_rng(6).normal(size=(100, 2)).astype(np.float32)
    labels = np.arange(100) % 4 == 0
    params = {"objective": "binary", "min_data_in_leaf": 90, "verbosity": -1, "num_threads": 1}
    booster = lightgbm.train(params, lightgbm.Dataset(rows, labels), 3)
    forest = read_forest(booster)
    found = _leaves(forest, rows)
    np.testing.assert_array_equal(found, np.zeros_like(found))
    raw = forest.values[:, 0].sum()
    np.testing.assert_allclose(raw, booster.predict(rows, raw_score=True, num_threads=1), atol=1e-6)
    assert raw == pytest.approx(np.log(0.25 / 0.75))


def _for(dataset, name, features=FEW):
    """Return the data set for an objective; one with two heads has rows that were drawn, and so not taken."""
    splits = dataset.splits
    if OBJECTIVES[name].heads:
        splits = {each: _with_drawn(split) for each, split in splits.items()}
    return replace(dataset, signature=ranking(MOVIELENS, features, OBJECTIVES[name]), splits=splits)


def _with_drawn(split):
    few = split.features["item_event_count"] < 60
    targets = split.targets | {"is_drawn": few.astype(np.int64)}
    return replace(split, labels=np.where(few, 0, split.labels), targets=targets)


def _context(dataset):
    return FitContext(dataset.signature, dataset.transforms, dataset[TRAIN], dataset[VALID], 1)


@pytest.fixture
def stages(monkeypatch):
    """What LightGBM fitted, and what the graph says of the train rows where Keras's loop would begin."""
    seen = {"boosters": []}
    train = lightgbm.train

    def boosted(*args, **options):
        seen["boosters"].append(train(*args, **options))
        return seen["boosters"][-1]

    def begun(scorer, encoded, context, config):
        columns = encoded.run(context.train.features, context.signature)
        seen.update(config=config, columns=columns, logits=np.array(scorer(columns, training=False)))
        return Fitted(encoded, scorer, {}, {"best_epoch": 1})

    monkeypatch.setattr(lightgbm, "train", boosted)
    monkeypatch.setattr(gbdt_lr, "fit_by_keras", begun)
    return seen


@pytest.mark.parametrize("name", ["probability", "regression", "watch_time", "listwise", "taken_and_liked"])
def test_the_fit_begins_with_the_boosted_trees(name, dataset, stages):
    some = _for(dataset, name)
    fitted = GBDTLR(QUICK).fit(_context(some))
    columns, encoded = stages["columns"], build_encoder(some.signature, some.transforms).reading(())
    numbers = np.concatenate([columns[each] for each in encoded.numeric], axis=1)
    raw = np.stack([booster.predict(numbers, raw_score=True, num_threads=1) for booster in stages["boosters"]], axis=1)
    assert raw.shape == (some[TRAIN].rows, len(OBJECTIVES[name].heads) or 1)
    assert np.ptp(raw, axis=0).min() > 0.5, "trees have learned something"
    np.testing.assert_allclose(stages["logits"], raw, atol=1e-5)
    assert stages["config"] == QUICK.fit
    trees = [fitted.params[f"trees_{head}" if head else "trees"] for head in OBJECTIVES[name].heads or ("",)]
    assert trees == [booster.best_iteration for booster in stages["boosters"]]
    labels = some[TRAIN].labels
    if name == "regression":
        assert np.corrcoef(raw[:, 0], some[TRAIN].targets["value"])[0, 1] > 0.7
        assert raw.mean() == pytest.approx(some[TRAIN].targets["value"].mean(), abs=0.1)
    elif name == "watch_time":
        values = some[TRAIN].targets["value"][labels == 1]
        odds = values.sum() / (labels == 0).sum()
        assert raw.mean() == pytest.approx(np.log(odds), abs=0.5), "positive rows weigh by their value"
    elif name == "taken_and_liked":
        taken = 1 - some[TRAIN].targets["is_drawn"]
        assert np.corrcoef(raw[:, 0], taken)[0, 1] > 0.9, "the first forest is of what was taken"
        assert raw[taken == 1, 1].mean() == pytest.approx(np.log(1 / (1 / labels[taken == 1].mean() - 1)), abs=0.5)
    else:
        assert raw[labels == 1].mean() > raw[labels == 0].mean() + 0.3


def test_every_weight_but_the_trees_is_learned(dataset):
    context = _context(_for(dataset, "probability"))
    fitted = GBDTLR(QUICK).fit(context)
    columns = fitted.encoded.run(context.train.features, context.signature)
    weights = fitted.scorer.trainable_weights
    assert {"leaf_weight/embeddings", "item_id_weight/embeddings", "weight/kernel"} <= {each.path for each in weights}
    assert unreached(fitted.scorer, columns) == []
    trees = fitted.scorer.get_layer("trees")
    assert [each.name for each in trees.weights] == ["columns", "thresholds", "lower", "upper"]
    assert np.abs(fitted.scorer.get_layer("weight").get_weights()[0]).max() > 1e-3, "they began as 0"
    history = fitted.history["log_loss"]
    assert len(history) == 2
    assert history[1] < history[0]


def test_what_cannot_be_fitted_says_why(dataset, monkeypatch):
    with pytest.raises(BuildError, match=r"expected columns of numbers for its trees, received .*user_top_genres"):
        GBDTLR(QUICK).fit(_context(_for(dataset, "probability", ("user_top_genres",))))
    some = _for(dataset, "probability")
    unknown = replace(some.signature, objective=replace(some.signature.objective, name="unheard_of"))
    with pytest.raises(BuildError, match=r"expected an objective among .*received 'unheard_of'"):
        GBDTLR(QUICK).fit(_context(replace(some, signature=unknown)))
    original = builtins.__import__

    def without(name, *args, **options):
        if name == "lightgbm":
            raise ImportError(name)
        return original(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BuildError, match="expected LightGBM to be installed"):
        GBDTLR(QUICK).fit(_context(some))
