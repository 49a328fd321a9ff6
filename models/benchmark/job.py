"""Fit models to rows that were divided one way or another, seed by seed, and score the test rows once each."""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any

from feature_repo.contracts.manifests import TrainingSet
from feature_repo.contracts.places import MANIFEST
from feature_repo.contracts.publishing import CorruptRecordError
from feature_repo.contracts.signatures import DEFAULT_FEATURES
from models.benchmark.boosted import Boosted
from models.benchmark.context import read_context
from models.benchmark.given_split import read_given_split
from models.benchmark.measure import figures, measure
from models.benchmark.preparation import training_set_of
from models.benchmark.presets import Preset, boosted_preset, context_presets, preset_of
from models.benchmark.protocols import Protocol
from models.dataset import TEST, TRAIN, VALID, Dataset, read_dataset
from models.errors import BenchmarkError, DatasetError
from models.evaluation.baselines import means, popularity
from models.evaluation.table import MEANS, POPULARITY
from models.ranking.catalogue import ranking_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from models.benchmark.given_split import GivenSplit
    from models.benchmark.presets import Presets
    from models.ranking.base import RankingConfig, RankingModel

log = logging.getLogger(__name__)
_SEQUENCE = "user_sequence"
"""The group of features that has the user's last events."""
_WITH_SEQUENCE = "ranking_sequences"
"""The feature service of training sets that have it."""


def benchmark(  # noqa: PLR0917 - of what, by whom, how often, how
    protocol: Protocol, data: Path, mapping: str, models: Sequence[str], seeds: int, presets: Presets | None
) -> dict[str, Any]:
    """Return a row for each model and seed, and what others published.

    A model that fails has `error` in its row, and no figures; the others go on.

    Args:
        protocol: How rows are divided.
        data: A given split's folder; else a training set's, or whatever the data plane takes.
        mapping: What the data means, where the data plane has to be told; a YAML file.
        models: Names of the catalogue, and `lightgbm`.
        seeds: Fits of each model.
        presets: Settings; without any, those of the protocol.

    Raises:
        BenchmarkError: A model failed; the error has the result of all.
        DatasetError: The folder is no given split.
        JobFailedError: The data plane cannot make rows of the data.
        SpecError: A model or a setting is unknown.
    """
    chosen = {name: model_of(name, protocol, presets) for name in models}  # all of them before anything is computed
    rows_of = read_rows(protocol, data, mapping)
    first = rows_of(models[0])
    log.info("%s: %s", data, ", ".join(f"{name} {first[name].rows:,} rows" for name in (TRAIN, VALID, TEST)))
    found = baseline_rows(first) if isinstance(first, Dataset) else []
    for name, (model, _) in chosen.items():
        for seed in range(1, seeds + 1):
            found.append(row(name, model, rows_of(name), seed))
            log.info("%s", found[-1])
    result = {"rows": found, "published": {name: dict(preset.published) for name, (_, preset) in chosen.items()}}
    if failed := [f"{each['model']}, seed {each['seed']}" for each in found if "error" in each]:
        raise BenchmarkError(failed, result)
    return result


def model_of(
    name: str, protocol: Protocol, presets: Presets | None
) -> tuple[RankingModel[RankingConfig] | Boosted, Preset]:
    """Return an unfitted model by its name, and its preset.

    Without presets it is set up as its class is, by time; else as the field's benchmarks do.

    Raises:
        SpecError: There is no such model, or a setting is none of its config.
    """
    if name == Boosted.name:
        preset = boosted_preset(presets)
        return Boosted(preset.config), preset
    model_class = ranking_model(name)
    if protocol is Protocol.TIME and presets is None:
        return model_class(model_class.config_class()), Preset(None, {})
    preset = preset_of(name, context_presets() if protocol is Protocol.RANDOM and presets is None else presets)
    return model_class(preset.config), preset


def read_rows(protocol: Protocol, data: Path, mapping: str = "") -> Callable[[str], GivenSplit | Dataset]:
    """Return a function: a model's name → the train, validation and test rows that it is fitted to.

    Raises:
        DatasetError: The folder is no given split, or its training set is of another kind.
        JobFailedError: The data plane cannot make rows of the data.
    """
    if protocol is Protocol.TIME:
        return rows_by_time(training_set_of(data, mapping))
    if protocol is Protocol.GIVEN_SPLIT:
        given = read_given_split(data)
    else:
        given = read_context(training_set_of(data, mapping)).fold(1)
    return lambda _: given


def rows_by_time(directory: Path) -> Callable[[str], Dataset]:
    """Return a function: a model's name → a training set in memory, with the features that the model is given.

    Models of histories have the user's last events, where the training set has them; no other model reads them.

    Raises:
        DatasetError: The training set is of another kind.
    """
    try:
        there = TrainingSet.read(directory / MANIFEST).feature_service == _WITH_SEQUENCE
    except CorruptRecordError as error:
        raise DatasetError(str(error)) from error

    @cache
    def read(features: tuple[str, ...]) -> Dataset:
        return read_dataset(directory, features=features)

    def rows_of(name: str) -> Dataset:
        return read((*DEFAULT_FEATURES, *(features_of_history(name) if there else ())))

    return rows_of


def features_of_history(name: str) -> tuple[str, ...]:
    """Return the features that a model's history consists of; none where it reads no history."""
    return (_SEQUENCE,) if name != Boosted.name and "history" in ranking_model(name).inputs else ()


def row(
    name: str, model: RankingModel[RankingConfig] | Boosted, rows: GivenSplit | Dataset, seed: int
) -> dict[str, Any]:
    """Return what one fit is worth on the test rows; where the model fails, why."""
    head = {"model": name, "seed": seed}
    try:
        measured = measure(model, rows, seed)
    except Exception as error:  # whatever is wrong with a model, the others are measured
        log.warning("%s, seed %d", name, seed, exc_info=error)
        return {**head, "auc": None, "gauc": None, "log_loss": None, "seconds": None, "error": told(error)}
    found = figures(rows[TEST], measured.test, groups=getattr(rows, "has_groups", True))
    return {**head, **found, "seconds": round(measured.seconds, 2)}


def told(error: Exception) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split()):.500}"


def baseline_rows(rows: Dataset) -> list[dict[str, Any]]:
    """Return the rows of what needs no fit: they only order, and so have no log loss."""
    test = rows[TEST]
    untrained = {
        POPULARITY: popularity(test.features),
        MEANS: means(test.features, rows.transforms.prior_mean),
    }
    return [
        {"model": name, "seed": None, **figures(test, scores, probabilities=False), "seconds": 0.0}
        for name, scores in untrained.items()
    ]
