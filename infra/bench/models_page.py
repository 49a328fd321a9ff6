"""Records of the benchmark of models → `docs/results/models.json`, and a section of `docs/quality.md`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl

from feature_repo.contracts.publishing import replacing
from infra.bench.models_peers_page import peer_figures, peer_table
from infra.bench.models_summary import told_interval
from infra.bench.results import Figure
from models.benchmark.boosted import Boosted
from models.evaluation.table import MEANS, POPULARITY
from models.ranking.catalogue import RANKING_MODELS
from models.ranking.listing import COSTS, told_cost

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure as Plot

    Record = Mapping[str, Any]

mpl.use("Agg")

SUMMARY = "summary.json"
"""Of a data set, in its folder."""
HEADING = "## Ranking models"
_BEGIN = f"{HEADING}\n\n<!-- written by make bench-models -->"
_END = "<!-- end of what make bench-models writes -->"
"""The heading comes first: the page of lists keeps what stands between two headings, and orders it."""
_SIMPLE = (POPULARITY, MEANS, Boosted.name)
_UNITS = dict(zip(COSTS, ("ms", "bytes", "s"), strict=True))
_LEAST_DIFFERENCE = -0.002
"""Of the AUC of the best of ours, the interval's lower end, less LightGBM's on random folds."""
_FEW_USERS = 100
_INTRODUCTION = """`make bench-models` fits every class of the catalogue ([ranking models](ranking-models.md)) to a
data set, and writes this section and `docs/results/models.json`. `FULL=1` takes all folds, three origins for the five
best, and peers (`ARGS=--peers`: these alone); `DATA` and `SOURCE` name other data, which is added.

- At random: ten folds of a context table, which has users, items and what the source says of them. All models have the
  same embedding size and the same settings to choose from, by the first fold's validation rows. These folds know the
  future: they compare models, and promise nothing. Differences are of the AUC, less LightGBM's over the same rows; the
  interval holds 95 %, users are resampled with their rows.
- By time: the training set of production, each class with its own defaults. What tests comes after what is learned.
- Lists: NDCG@10 of each model's own order of the same candidates, at the validation origin, with nothing mixed in. "Of
  rows" is the model by time, which learned from events with values. "Of lists" is the class fitted to what recall
  offered for questions of the past, with the features, objective and fit of the shipped spec `lists`; models of
  histories have these, too.
- Costs are those of the model by time: 200 candidates of one user in one process (median), the SavedModel on the disk,
  seconds of fitting for a million rows.
"""


def record_figures(found: Sequence[Record]) -> list[Figure]:
    """Return the figures of all data sets; costs are those of the last one in which a model was measured."""
    figures: list[Figure] = []
    costs: dict[str, float] = {}
    for each in found:
        for line in each["models"]:
            figures += _of_line(each, line)
            own = (line["time"] or {}).get("costs") or {}
            costs |= {f"{line['model']} {name}": value for name, value in own.items()}
        figures += [*_target(each), *peer_figures(each)]
    return figures + [Figure(name, value, _UNITS[name.split()[-1]], "lower") for name, value in costs.items()]


def _of_line(data: Record, line: Record) -> list[Figure]:
    name, at_random, by_time, ranker = line["model"], *(line[part] or {} for part in ("random", "time", "ranker"))
    figures = []
    if "auc" in at_random:
        of = f"{data['data']}: AUC of {name} at random, {at_random['folds']} of 10 folds"
        figures.append(Figure(of, at_random["auc"], "ratio", "higher"))
    if "auc" in by_time:
        of = f"{data['data']}: AUC of {name} by time"
        figures.append(Figure(of, by_time["auc"], "ratio", "higher", spread=by_time["spread"]))
    if by_time.get("ndcg_at_10") is not None:
        of = f"{data['data']}: NDCG@10 of {name} as ranker"
        figures.append(Figure(of, by_time["ndcg_at_10"], "ratio", "higher"))
    if ranker.get("ndcg_at_10") is not None:
        of = f"{data['data']}: NDCG@10 of {name} as ranker that learned from lists"
        figures.append(Figure(of, ranker["ndcg_at_10"], "ratio", "higher", spread=ranker["spread"]))
    return figures


def _target(data: Record) -> list[Figure]:
    """Return how far the best of ours is from LightGBM at random: the lower end of the interval."""
    rivals = [line for line in data["models"] if (line["random"] or {}).get("less_lightgbm")]
    if not rivals:
        return []
    best = max(rivals, key=lambda line: line["random"]["auc"])["random"]["less_lightgbm"]
    of = f"{data['data']}: AUC of the best of ours less LightGBM's, at random, the interval's lower end"
    return [Figure(of, best["low"], "ratio", "higher", _LEAST_DIFFERENCE, hard=True)]


def write_section(found: Sequence[Record], page: Path) -> None:
    """Write the section of all data sets into a page, and its plots beside; what else the page says stays."""
    body = "\n".join([_BEGIN, "", _INTRODUCTION, *(_section(each, page.parent) for each in found), _END, ""])
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    before, begin, rest = text.partition(_BEGIN)
    after = rest.partition(_END)[2].lstrip("\n") if begin else ""
    whole = before.rstrip("\n") + "\n\n" + body + (f"\n{after}" if after else "")
    with replacing(page) as part:
        part.write_text(whole.lstrip("\n"), encoding="utf-8")


def _section(data: Record, docs: Path) -> str:
    lines = sorted(data["models"], key=_order)
    by_rows, by_lists = _places(data, "time", "auc"), _places(data, *_lists_of(data))
    shown = []
    if by_lists:
        path = docs / "images" / f"models-{data['data']}.svg"
        with replacing(path) as part:
            _plot(data).savefig(part, format="svg", metadata={"Date": None})
        shown = [f"![AUC by time and NDCG@10 of each model]({path.relative_to(docs).as_posix()})", ""]
    heads = "AUC by time | GAUC | log loss | place | NDCG@10 of rows | of lists | place | AUC at random | less LightGBM"
    table = [
        f"| model | {heads} | cost |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(_row(line, by_rows, by_lists) for line in lines),
    ]
    head = f"### {data['data']}, {data['rows']:,} rows"
    return "\n".join(
        [head, "", *_told(data), "", *shown, *table, "", *_rolling(data), *_rolling_rankers(data), *peer_table(data)]
    )


def _order(line: Record) -> tuple[float, float]:
    """Return what a line of the table stands by: the best by time first, then what only orders lists."""
    by_time, ranker = (line[part] or {} for part in ("time", "ranker"))
    return -(by_time.get("auc") or 0.0), -(ranker.get("ndcg_at_10") or 0.0)


def _lists_of(data: Record) -> tuple[str, str]:
    """Return the part and the figure of a line that the order by lists follows: that of who learned lists, if any."""
    learned = any((line["ranker"] or {}).get("ndcg_at_10") is not None for line in data["models"])
    return ("ranker" if learned else "time", "ndcg_at_10")


def _plot(data: Record) -> Plot:
    """Return the models by what rows say of them and by what lists do."""
    from matplotlib.figure import Figure as Plot  # noqa: PLC0415 - the name of results' Figure is taken

    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["svg.hashsalt"] = data["data"]  # the same figures give the same file
    plot = Plot(figsize=(7, 4.5), layout="constrained")
    axes = plot.subplots()
    part, figure = _lists_of(data)
    for line in data["models"]:
        x, y = (line["time"] or {}).get("auc"), (line[part] or {}).get(figure)
        if x is not None and y is not None:
            axes.plot(x, y, "o", color="tab:blue", markersize=4)
            axes.annotate(line["model"], (x, y), xytext=(3, 3), textcoords="offset points", fontsize=7)
    if data["lists"]["unranked"] is not None:
        axes.axhline(data["lists"]["unranked"], color="tab:gray", linewidth=1, linestyle="--", label="unranked")
        axes.legend()
    axes.set(xlabel="AUC of the test rows, by time", ylabel="NDCG@10 as ranker", title=data["data"])
    return plot


def _places(data: Record, part: str, figure: str) -> dict[str, int]:
    """Return model → its place from 1 among those that have the figure; what is no class is none by time."""
    own = [
        (line[part][figure], line["model"])
        for line in data["models"]
        if (part != "time" or line["model"] in RANKING_MODELS) and (line[part] or {}).get(figure) is not None
    ]
    return {name: place for place, (_, name) in enumerate(sorted(own, key=lambda each: -each[0]), 1)}


def _row(line: Record, by_rows: Mapping[str, int], by_lists: Mapping[str, int]) -> str:
    name, at_random, by_time, ranker = line["model"], *(line[part] or {} for part in ("random", "time", "ranker"))
    less = at_random.get("less_lightgbm")
    cells = (
        name if name in (*RANKING_MODELS, *_SIMPLE) else f"spec `{name}`",
        _number(by_time.get("auc")),
        _number(by_time.get("gauc")),
        _number(by_time.get("log_loss")),
        str(by_rows.get(name, "-")),
        _number(by_time.get("ndcg_at_10")),
        _number(ranker.get("ndcg_at_10")),
        str(by_lists.get(name, "-")),
        _number(at_random.get("auc")),
        "-" if less is None else f"{less['value']:+.4f} ({told_interval(less)})",
        told_cost(by_time.get("costs") or {}) or "-",
    )
    return f"| {' | '.join(cells)} |"


def _told(data: Record) -> list[str]:
    """Say plainly who loses to what needs no deep model, and how the two orders differ."""
    by_time = {line["model"]: line["time"] for line in data["models"] if (line["time"] or {}).get("auc") is not None}
    deep = {name: each["auc"] for name, each in by_time.items() if name in RANKING_MODELS}
    sentences = [_losing(deep, simple, by_time[simple]["auc"], "by time") for simple in _SIMPLE if simple in by_time]
    missing = (
        ("random", "error", "figures at random"),
        ("time", "error", "figures by time"),
        ("time", "lists_error", "lists"),
        ("ranker", "error", "figures as ranker that learned from lists"),
    )
    return [
        *sentences,
        *_told_of_lists(data),
        *(
            f"- {line['model']} has no {what}: {error}"
            for part, key, what in missing
            for line in data["models"]
            if (error := (line[part] or {}).get(key))
        ),
    ]


def _losing(figures: Mapping[str, float], simple: str, limit: float, how: str) -> str:
    losing = sorted(name for name, value in figures.items() if value < limit)
    names = f": {', '.join(losing)}" if 0 < len(losing) < len(figures) else ""
    told = f"{len(losing)} of {len(figures)} models lose" if losing else "No model loses"
    return f"- {told} to {simple} {how}{names}."


def _told_of_lists(data: Record) -> list[str]:
    """Say who is first by rows and by lists, and what recall and the best simple list are worth without a model."""
    orders = _places(data, "time", "auc"), _places(data, *_lists_of(data))
    if not all(orders):
        return []
    first = [min(order, key=lambda name: order[name]) for order in orders]
    lists = data["lists"]
    simple, few = lists["best_simple"], " So few users tell little of the lists' order."
    told = (
        f"- By AUC {first[0]} is first, by lists {first[1]} ({lists['users']} users). Unranked, the candidates have an "
        f"NDCG@10 of {_number(lists['unranked'])}; the best simple list, {simple['name']}, has "
        f"{_number(simple.get('ndcg_at_10'))}.{few if lists['users'] < _FEW_USERS else ''}"
    )
    sentences = [told]
    if simple.get("ndcg_at_10") is None:
        return sentences
    for part, learned in (("time", "rows"), ("ranker", "lists")):
        of = {line["model"]: (line[part] or {}).get("ndcg_at_10") for line in data["models"]}
        known = {name: value for name, value in of.items() if value is not None}
        if known:
            how = f"as rankers that learned from {learned}"
            sentences.append(_losing(known, "the best simple list", simple["ndcg_at_10"], how))
    return sentences


def _rolling(data: Record) -> list[str]:
    """Return the table of the models that were measured at several origins."""
    several = [line for line in data["models"] if len((line["time"] or {}).get("origins", ())) > 1]
    several = [line for line in several if line["model"] in RANKING_MODELS]
    if not several:
        return []
    count = max(len(line["time"]["origins"]) for line in several)
    heads = "".join(f" | AUC, origin {number} | NDCG@10" for number in range(1, count + 1))
    rows = [
        f"| {line['model']}"
        + "".join(
            f" | {_number(value)} | {_number(lists)}"
            for value, lists in zip(line["time"]["origins"], line["time"]["lists_by_origin"], strict=True)
        )
        + " |"
        for line in several
    ]
    return ["Origins, the latest first:", "", f"| model{heads} |", f"|---{'|---|---' * count}|", *rows, ""]


def _rolling_rankers(data: Record) -> list[str]:
    """Return the table of what learned from lists and was measured at several origins."""
    several = [line for line in data["models"] if len((line["ranker"] or {}).get("origins", ())) > 1]
    if not several:
        return []
    count = max(len(line["ranker"]["origins"]) for line in several)
    heads = "".join(f" | NDCG@10, origin {number}" for number in range(1, count + 1))
    rows = [f"| {line['model']} | {' | '.join(map(_number, line['ranker']['origins']))} |" for line in several]
    return [
        "What learned from lists, the latest origin first:",
        "",
        f"| model{heads} |",
        f"|---{'|---' * count}|",
        *rows,
        "",
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
