"""The search that every model has before it is compared: the same few settings, judged by the validation rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.benchmark.boosted import SEARCH as BOOSTED_SEARCH
from models.benchmark.boosted import Boosted
from models.benchmark.measure import figures, measure
from models.benchmark.presets import Presets, context_presets, preset_of
from models.dataset import TEST, VALID
from models.evaluation.metrics import auc
from models.ranking.catalogue import ranking_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infra.bench.models_cells import Cell, Kept
    from models.ranking.base import RankingConfig, RankingModel
    from models.training.fit import Fittable

    Model = RankingModel[RankingConfig] | Boosted


def options(name: str) -> list[Model]:
    """Return the model with each of the declared settings; a budget that is the same for all."""
    if name == Boosted.name:
        return [Boosted(config) for config in BOOSTED_SEARCH]
    presets = context_presets()
    tried = (Presets(common={**presets.common, **settings}, models=presets.models) for settings in presets.search)
    return [ranking_model(name)(preset_of(name, each).config) for each in tried]


def searched(kept: Kept, cell: Cell, tried: Sequence[Model], rows: Fittable) -> dict[str, Any]:
    """Fit each option, and keep the test scores of the one whose validation rows have the highest AUC.

    Raises:
        JobError: The model cannot be fitted to such rows.
    """
    fits = [measure(option, rows, cell.seed) for option in tried]
    aucs = [auc(rows[VALID].labels, each.valid) for each in fits]
    best = max(range(len(fits)), key=aucs.__getitem__)
    kept.keep_scores(cell, fits[best].test)
    return {
        "option": best,
        "config": tried[best].config.model_dump(mode="json"),
        "searched": aucs,
        "figures": figures(rows[TEST], fits[best].test),
        "seconds": fits[best].seconds,
    }
