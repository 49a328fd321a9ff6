"""Fit models to a given split, seed by seed, and score its test rows once each."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from models.benchmark.given_split import read_given_split
from models.benchmark.presets import preset_of
from models.dataset import TEST, TRAIN, VALID
from models.evaluation.metrics import auc, check_finite, gauc, log_loss
from models.objectives import learned
from models.ranking.catalogue import ranking_model
from models.training.fit import fit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from models.benchmark.given_split import GivenSplit
    from models.benchmark.presets import Preset, Presets

log = logging.getLogger(__name__)


def benchmark(data: Path, models: Sequence[str], seeds: int, presets: Presets | None) -> dict[str, Any]:
    """Return a row for each model and seed, and what others published.

    Raises:
        DatasetError: The folder is no given split.
        SpecError: A model or a setting is unknown.
    """
    chosen = {name: preset_of(name, presets) for name in models}  # all of them before the first is fitted
    given = read_given_split(data)
    log.info("%s: %s", data, ", ".join(f"{name} {given[name].rows:,} rows" for name in (TRAIN, VALID, TEST)))
    rows = []
    for name, preset in chosen.items():
        for seed in range(1, seeds + 1):
            rows.append(_row(name, preset, given, seed))
            log.info("%s", rows[-1])
    return {"rows": rows, "published": {name: dict(preset.published) for name, preset in chosen.items()}}


def _row(name: str, preset: Preset, given: GivenSplit, seed: int) -> dict[str, Any]:
    began = time.perf_counter()
    fitted = fit(ranking_model(name)(preset.config), given, seed)
    seconds = time.perf_counter() - began
    test = given[TEST]
    logits = fitted.scorer.predict(fitted.encoded.run(test.features, given.signature), batch_size=8192, verbose=0)
    scores = check_finite(np.asarray(learned(given.signature.objective).scores(logits)), f"{name}, seed {seed}")
    return {
        "model": name,
        "seed": seed,
        "auc": auc(test.labels, scores),
        "gauc": gauc(test.labels, scores, test.users) if given.has_groups else None,
        "log_loss": log_loss(test.labels, scores),
        "seconds": round(seconds, 2),
    }
