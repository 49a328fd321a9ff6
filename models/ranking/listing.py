"""The catalogue for others to read: a record of every class, and a page for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.objectives import OBJECTIVES
from feature_repo.contracts.publishing import read_json
from models.ranking.catalogue import RANKING_MODELS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

COSTS = ("p50_ms", "bytes", "seconds_per_million_rows")
"""Of scoring 200 candidates, of the SavedModel, and of fitting."""
_PAGE = """# Ranking models

Written by `python -m models catalogue --page docs/ranking-models.md`, not by hand. A spec names one of
these classes ([add a model](add-a-model.md)); what each does, and how it deviates from its paper, stands in its module.

Inputs: any `fields`, some of the `user` or the `item`, a `history` of items, the `sessions` of its events. A history
is the user's last 10 events, or the last 50 where the spec's features have `user_sequence`; that has sessions, too.
Costs are those of `make bench-models`: milliseconds for 200 candidates, the SavedModel on the disk, seconds of fitting
for a million rows.

| name | module | paper | inputs | objectives | cost |
|---|---|---|---|---|---|
"""


def listing(costs: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Return a record of every class; `costs` are those that were measured, by its name."""
    return [
        {
            "name": model.name,
            "paper": model.paper,
            "inputs": list(model.inputs),
            "objective": list(model.objectives),
            "cost": {measured: costs.get(model.name, {}).get(measured) for measured in COSTS},
        }
        for model in RANKING_MODELS.values()
    ]


def measured_costs(results: Path) -> dict[str, dict[str, float]]:
    """Return model → its costs, of a benchmark's results; nothing where there are none.

    Its figures are called `<model> <cost>`.
    """
    if not results.is_file():
        return {}
    figures: Any = read_json(results)["figures"]
    costs: dict[str, dict[str, float]] = {}
    for figure in figures:
        name, _, measured = figure["name"].rpartition(" ")
        if measured in COSTS:
            costs.setdefault(name, {})[measured] = figure["value"]
    return costs


def to_markdown(models: Sequence[Mapping[str, Any]]) -> str:
    """Return the page."""
    return _PAGE + "".join(f"{_row(model)}\n" for model in models)


def told_cost(cost: Mapping[str, float | None]) -> str:
    """Return costs in a few words; none where one of them is not known."""
    p50_ms, size, seconds = (cost.get(name) for name in COSTS)
    if p50_ms is None or size is None or seconds is None:
        return ""
    return f"{p50_ms:.2g} ms, {size / 1e6:.1f} MB, {seconds:.0f} s"


def _row(model: Mapping[str, Any]) -> str:
    module = RANKING_MODELS[model["name"]].__module__.replace(".", "/")
    objectives = "all" if set(model["objective"]) == set(OBJECTIVES) else ", ".join(model["objective"])
    cells = (
        f"`{model['name']}`",
        f"[{module.rpartition('/')[2]}](../{module}.py)",
        model["paper"],
        ", ".join(model["inputs"]),
        objectives,
        told_cost(model["cost"]) or "not measured",
    )
    return f"| {' | '.join(cells)} |"
