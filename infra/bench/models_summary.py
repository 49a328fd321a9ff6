"""Cells of the benchmark of models → one record of a data set: each model's figures at random, by time, as lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from infra.bench.models_cells import Cell
from models.benchmark.boosted import Boosted
from models.evaluation.metrics import auc
from models.gates.bootstrap import auc_statistic, percentile_interval, resample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from infra.bench.models_cells import Kept
    from models.benchmark.context import ContextTable

    Record = Mapping[str, Any]

_CONFIDENCE, _RESAMPLES, _SEED = 0.95, 1000, 1


def summary(
    data: str,
    kept: Kept,
    context: ContextTable,
    at_random: Sequence[Record],
    by_time: Sequence[Record],
    *,
    rankers: Sequence[Record],
) -> dict[str, Any]:
    """Return the record of a data set.

    Args:
        data: Its name.
        kept: Where scores of random folds are.
        context: The rows of those folds.
        at_random: Records of the part "random".
        by_time: Records of the part "time", each with its `lists`.
        rankers: Records of the part "ranker", each with its `lists`; of none of a log that is too short.
    """
    names = dict.fromkeys(each["model"] for each in (*by_time, *at_random, *rankers))
    pooled = _pooled(kept, context, at_random)
    lists = [each["lists"] for each in (*by_time, *rankers) if "ndcg_at_10" in each.get("lists", {})]
    shared = lists[0] if lists else {}
    return {
        "data": data,
        "rows": len(context.rows),
        "folds": max((each["number"] for each in at_random), default=0),
        "lists": {name: shared.get(name) for name in ("users", "best_simple", "unranked")},
        "models": [
            {
                "model": name,
                "random": _of_random(name, _of(name, at_random), pooled),
                "time": _of_time(_of(name, by_time)),
                "ranker": _of_ranker(_of(name, rankers)),
            }
            for name in names
        ],
    }


def _of(name: str, records: Sequence[Record]) -> list[Record]:
    return [each for each in records if each["model"] == name]


def _of_ranker(records: Sequence[Record]) -> dict[str, Any] | None:
    """Return NDCG@10 at the first origin and at each; an error where there is none."""
    if not records:
        return None
    at = {number: [each for each in records if each["number"] == number] for number in _origins(records)}
    first = [each["lists"].get("ndcg_at_10") for each in at[1]]
    known = [value for value in first if value is not None]
    errors = (each.get("error") or each["lists"].get("error") for each in records)
    return {
        "ndcg_at_10": _mean(first),
        "spread": float(np.std(known, ddof=1)) if len(known) > 1 else None,
        "origins": [_mean([each["lists"].get("ndcg_at_10") for each in own]) for own in at.values()],
        "error": next((error for error in errors if error), ""),
    }


def _origins(records: Sequence[Record]) -> list[int]:
    """Return the numbers of the origins, from the latest on."""
    return sorted({int(each["number"]) for each in records})


def _pooled(kept: Kept, context: ContextTable, records: Sequence[Record]) -> dict[str, tuple[NDArray[Any], ...]]:
    """Return model → labels, users and scores of the rows of all folds that it was tested on, in the folds' order."""
    tested = context.tested_in
    labels = context.rows["label"].to_numpy().astype(np.int64)
    users = np.unique(context.rows["user_id"].to_numpy().astype(str), return_inverse=True)[1]
    found: dict[str, tuple[NDArray[Any], ...]] = {}
    for name in dict.fromkeys(each["model"] for each in records):
        own = sorted((each for each in records if each["model"] == name and "figures" in each), key=_number)
        if own:
            rows = np.concatenate([np.flatnonzero(tested == each["number"]) for each in own])
            paths = [kept.scores(Cell("random", each["number"], name, each["seed"], {})) for each in own]
            found[name] = (labels[rows], users[rows], np.concatenate([np.load(path) for path in paths]))
    return found


def _number(record: Record) -> int:
    return int(record["number"])


def _of_random(
    name: str, records: Sequence[Record], pooled: Mapping[str, tuple[NDArray[Any], ...]]
) -> dict[str, Any] | None:
    """Return the pooled AUC, and how far it is from LightGBM's over the same rows; an error where there is none."""
    if not records:
        return None
    if name not in pooled:
        return {"error": records[0].get("error", "")}
    labels, users, scores = pooled[name]
    found: dict[str, Any] = {"auc": auc(labels, scores), "folds": sum("figures" in each for each in records)}
    if name != Boosted.name and Boosted.name in pooled and len(pooled[Boosted.name][0]) == len(labels):
        found["less_lightgbm"] = difference(labels, users, scores, pooled[Boosted.name][2])
    return found


def difference(
    labels: NDArray[Any], users: NDArray[Any], ours: NDArray[Any], others: NDArray[Any]
) -> dict[str, float | None]:
    """Return the difference of two AUCs over the same rows, with its interval: users are resampled with their rows."""
    codes = np.unique(users, return_inverse=True)[1]
    statistics = {name: auc_statistic(labels, of, codes) for name, of in (("ours", ours), ("others", others))}
    drawn = resample(statistics, int(codes.max()) + 1, _RESAMPLES, _SEED)
    ends = percentile_interval(drawn["ours"] - drawn["others"], _CONFIDENCE).ends
    low, high = ends or (None, None)
    return {"value": auc(labels, ours) - auc(labels, others), "low": low, "high": high}


def told_interval(less: Record) -> str:
    """Return the ends of what `difference` returned, in a few words."""
    return "no interval" if less["low"] is None else f"{less['low']:+.4f} to {less['high']:+.4f}"


def _of_time(records: Sequence[Record]) -> dict[str, Any] | None:
    """Return the figures of the first origin, their spread over seeds, and the AUC at each origin."""
    if not records:
        return None
    first = [each for each in records if each["number"] == 1 and "figures" in each]
    if not first:
        return {"error": records[0].get("error", "")}
    aucs = [each["figures"]["auc"] for each in first]
    origins = _origins([each for each in records if "figures" in each])
    return {
        **{name: _mean([each["figures"][name] for each in first]) for name in ("auc", "gauc", "log_loss")},
        "spread": float(np.std(aucs, ddof=1)) if len(aucs) > 1 else None,
        "origins": [
            _mean([each["figures"]["auc"] for each in records if each["number"] == number and "figures" in each])
            for number in origins
        ],
        "costs": first[0].get("costs") or {},
        "ndcg_at_10": _mean([each.get("lists", {}).get("ndcg_at_10") for each in first]),
        "lists_error": next((each["lists"]["error"] for each in first if "error" in each.get("lists", {})), ""),
        "lists_by_origin": [
            _mean([each.get("lists", {}).get("ndcg_at_10") for each in records if each["number"] == number])
            for number in origins
        ],
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
