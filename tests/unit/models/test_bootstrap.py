"""Resampled metrics equal the metric of the resampled rows; intervals mean what they say."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation import metrics
from models.gates import bootstrap


@pytest.fixture
def rows():
    random = np.random.default_rng(3)
    users = random.integers(0, 12, 400)
    labels = random.integers(0, 2, 400)
    return labels, np.round(random.random(400) * 0.5 + labels * 0.3, 2) + 0.01, users


def test_statistics_equal_the_metrics_of_repeated_rows(rows):
    labels, scores, users = rows
    draws = np.random.default_rng(5).multinomial(12, np.full(12, 1 / 12), size=8).astype(float)
    for resample, draw in enumerate(draws):
        chosen = np.repeat(np.arange(400), draw[users].astype(int))
        area = bootstrap.auc_statistic(labels, scores, users)(draws)[resample]
        loss = bootstrap.log_loss_statistic(labels, scores, users)(draws)[resample]
        grouped = bootstrap.gauc_statistic(labels, scores, users)(draws)[resample]
        per_user, _ = metrics.grouped_auc(labels, scores, users)
        assert area == pytest.approx(metrics.auc(labels[chosen], scores[chosen]))
        assert loss == pytest.approx(metrics.log_loss(labels[chosen], scores[chosen]))
        assert grouped == pytest.approx(np.mean(per_user[users[chosen]]))


def test_a_model_against_itself_has_an_interval_of_nothing(rows):
    statistic = bootstrap.auc_statistic(*rows)
    drawn = bootstrap.resample({"one": statistic, "two": bootstrap.auc_statistic(*rows)}, 12, 200, seed=1)
    interval = bootstrap.percentile_interval(drawn["one"] - drawn["two"], 0.95)
    assert (interval.low, interval.high) == (0.0, 0.0)
    assert interval.contains(0.0)


def test_the_same_seed_gives_the_same_interval_however_it_is_cut(rows, monkeypatch):
    whole = bootstrap.resample({"auc": bootstrap.auc_statistic(*rows)}, 12, 150, seed=9)["auc"]
    monkeypatch.setattr(bootstrap, "_DRAWN_AT_ONCE", bootstrap.MAX_BINS * 7)
    parts = bootstrap.resample({"auc": bootstrap.auc_statistic(*rows)}, 12, 150, seed=9)["auc"]
    assert np.array_equal(whole, parts)


def test_more_scores_than_bins_change_the_area_by_next_to_nothing():
    random = np.random.default_rng(4)
    labels, users = random.integers(0, 2, 30_000), random.integers(0, 50, 30_000)
    scores = random.normal(size=30_000) + labels
    binned = bootstrap.auc_statistic(labels, scores, users)(np.ones((1, 50)))[0]
    assert binned == pytest.approx(metrics.auc(labels, scores), abs=1e-4)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(8)
    covered = 0
    for trial in range(60):
        users = np.repeat(np.arange(60), 20)
        labels = random.integers(0, 2, 1200)
        scores = random.normal(size=1200) + labels  # AUC = Phi(1 / sqrt 2) = 0.7602
        drawn = bootstrap.resample({"auc": bootstrap.auc_statistic(labels, scores, users)}, 60, 300, seed=trial)
        covered += bootstrap.percentile_interval(drawn["auc"], 0.95).contains(0.7602)
    assert 50 <= covered <= 60


def test_undefined_resamples_are_left_out():
    interval = bootstrap.percentile_interval(np.array([np.nan, 1.0, np.nan]), 0.95)
    assert (interval.low, interval.high) == (1.0, 1.0)
    nothing = bootstrap.percentile_interval(np.array([np.nan]), 0.95)
    assert nothing.contains(1e9)
