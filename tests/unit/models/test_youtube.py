"""The perceptron of numbers and their powers, and the time to expect."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from feature_repo.contracts.objectives import OBJECTIVES
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.signatures import ranking
from models.dataset import TEST, TRAIN, read_dataset
from models.encoding import build_encoder
from models.layers.powers import Powers
from models.objectives import learned
from models.ranking.youtube import YouTube, YouTubeConfig
from models.training.fit import fit
from models.training.keras_loop import FitConfig
from tests.gradients import unreached
from tests.movielens import MOVIELENS
from tests.training_set_fixture import write_training_set

FEW = ("user_event_count", "item_event_count", "user_last_items")


def test_powers_forget_the_sign():
    numbers = np.array([[-4.0, 0.0, 0.25], [9.0, -0.01, 1.0]], np.float32)
    expected = [
        [number**2 for number in row] + [abs(number) ** 0.5 for number in row] for row in numbers.astype(np.float64)
    ]
    np.testing.assert_allclose(Powers()(numbers), expected, atol=1e-6)


@pytest.fixture(scope="module")
def graph(dataset):
    signature = ranking(MOVIELENS, FEW)
    encoded = build_encoder(signature, dataset.transforms)
    scorer = YouTube(YouTubeConfig(embedding_size=3, hidden=(6, 5))).build(encoded, seed=1)
    random = np.random.default_rng(2)
    scorer.set_weights([random.normal(size=each.shape) for each in scorer.get_weights()])
    return encoded.reading(()), scorer, encoded.run(dataset[TRAIN].take(np.arange(40)).features, signature)


def test_layers_see_averaged_vectors_numbers_and_powers(graph):
    encoded, scorer, columns = graph
    weights = {layer.name: layer.get_weights() for layer in scorer.layers if layer.weights}
    expected = []
    for row in range(40):
        values = []
        for column, vocabulary in encoded.categorical.items():
            terms = [index for index in np.atleast_1d(columns[column][row]) if index != 0]
            vectors = [weights[f"{vocabulary}_embedding"][0][index] for index in terms]
            values.append(np.mean(vectors, axis=0) if vectors else np.zeros(3))
        numbers = np.concatenate([columns[column][row] for column in encoded.numeric]).astype(np.float64)
        value = np.concatenate([*values, numbers, numbers**2, np.sqrt(np.abs(numbers))])
        for layer in ("deep_0", "deep_1"):
            value = np.maximum(value @ weights[layer][0] + weights[layer][1], 0)
        expected.append(value @ weights["logit"][0] + weights["logit"][1])
    assert (columns["user_last_items"] == 0).any()
    assert (np.concatenate([columns[column] for column in encoded.numeric], axis=1) < 0).any()
    np.testing.assert_allclose(scorer(columns, training=False), expected, rtol=1e-4, atol=1e-3)


def test_every_weight_is_learned(graph):
    _, scorer, columns = graph
    assert scorer.trainable_weights
    assert unreached(scorer, columns) == []


def test_without_numbers_it_reads_terms(dataset):
    signature = ranking(MOVIELENS, ("user_top_genres",))
    scorer = YouTube(YouTubeConfig()).build(build_encoder(signature, dataset.transforms), seed=1)
    assert "powers" not in {layer.name for layer in scorer.layers}


def _watched(split, random):
    """Return rows whose items are watched the oftener the more known they are, by some users longer than by others."""
    items, users = (split.features[f"{owner}_event_count"].astype(np.float64) for owner in ("item", "user"))
    chance = 1 / (1 + np.exp(3.9 - 0.0125 * items))
    seconds = 20 + 4 * users
    labels = (random.random(split.rows) < chance).astype(np.int64)
    values = np.where(labels == 1, seconds * random.gamma(4, 0.25, split.rows), 0).astype(np.float32)
    return replace(split, labels=labels, targets=split.targets | {"value": values}), chance, chance * seconds


def test_served_watch_time_is_about_what_is_watched(tmp_path):
    namespace = Namespace(tmp_path, "videos")
    write_training_set(namespace, "videos", rows=20_000)
    dataset = read_dataset(namespace.training_sets / "videos")
    random = np.random.default_rng(8)
    watched = {name: _watched(split, random) for name, split in dataset.splits.items()}
    some = replace(
        dataset,
        signature=ranking(MOVIELENS, ("user_event_count", "item_event_count"), OBJECTIVES["watch_time"]),
        splits={name: split for name, (split, *_) in watched.items()},
    )
    quick = FitConfig(batch_size=1024, epochs=25, patience=5, learning_rate=5e-3)
    fitted = fit(YouTube(YouTubeConfig(hidden=(16,), dropout=0.0, fit=quick)), some, seed=1)
    logits = fitted.scorer(fitted.encoded.run(some[TEST].features, some.signature), training=False)
    served = np.array(learned(some.signature.objective).scores(logits))
    _, chance, expected = watched[TEST]
    assert chance.max() < 0.25, "where most offers are not watched, the odds are about the time to expect"
    assert stats.spearmanr(served, expected).statistic > 0.9
    assert stats.spearmanr(chance, expected).statistic < 0.85, "the chance of watching alone orders otherwise"
    for part in np.array_split(np.argsort(served), 4):
        assert served[part].mean() == pytest.approx(expected[part].mean(), rel=0.35)
    odds = expected / (1 - chance)
    assert served.mean() == pytest.approx(odds.mean(), rel=0.15)
