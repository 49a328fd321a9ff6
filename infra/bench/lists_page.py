"""Cells → the record of the benchmark, and `docs/quality.md`: tables, plots, plain sentences; what loses included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.publishing import read_json, replacing
from feature_repo.contracts.questions import Asked
from infra.bench.results import Figure, machine
from serving.lists.intervals import interval
from serving.lists.metrics import DECIDING, LIST_METRICS
from serving.lists.report import CANDIDATE, RECALL_DEPTHS, RECALL_ORDER
from serving.lists.simple import LONG_HISTORY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure as Plot
    from numpy.typing import NDArray

mpl.use("Agg")

DATA_FILE = "data.json"
SERVED = "Kestrel, as served"
_FEW_USERS = 100
"""With fewer users at all origins together a difference says little."""
_SEED = 1
_HEADINGS = {
    "ndcg_at_10": "NDCG@10",
    "recall_at_10": "Recall@10",
    "hit_rate_at_10": "HitRate@10",
    "mrr_at_10": "MRR@10",
    "map_at_10": "MAP@10",
    "ndcg_at_100": "NDCG@100",
    "recall_at_100": "Recall@100",
}
_OF_LISTS = {"coverage": "coverage", "novelty": "novelty", "diversity": "diversity", "overlap": "overlap"}


@dataclass(frozen=True, slots=True)
class Measured:
    """One data set with its cells."""

    data: Mapping[str, Any]
    cells: Sequence[Mapping[str, Any]]
    """Records of `serving.lists`, in order of origin and seed."""
    figures: pa.Table
    """One row for each cell, moment, list and user."""

    @property
    def name(self) -> str:
        """The data set's name."""
        return str(self.data["namespace"])

    def values(self, asked: Asked, name: str, metric: str, least: int, most: float) -> tuple[NDArray[Any], ...]:
        """Return users, as numbers, and figures of everybody with `least` to `most` events, all cells together."""
        table = self.figures
        history = table.column("history").to_numpy()
        chosen = (
            (table.column("asked").to_numpy() == asked.value)
            & (table.column("list").to_numpy() == name)
            & (history >= least)
            & (history <= most)
        )
        users = table.column("user_id").to_numpy()[chosen]
        return np.unique(users.astype(np.str_), return_inverse=True)[1], table.column(metric).to_numpy()[chosen]


def is_measured(record: Path, questions_id: str) -> bool:
    """Return whether a cell was measured with these questions; where nobody could be asked it has no figures."""
    if not record.exists():
        return False
    content = read_json(record)
    has_figures = record.with_suffix(".parquet").exists() or not content.get("tables")
    return content.get("questions_id") == questions_id and has_figures


def read_cells(work: Path) -> list[Measured]:
    """Return every data set of the benchmark's folder; one in which nobody could be asked has no cells."""
    found = []
    for path in sorted(work.glob(f"*/{DATA_FILE}")):
        data = read_json(path)
        files = [
            file
            for file in sorted((path.parent / "cells").glob("*.json"))
            if is_measured(file, str(data["questions_id"])) and file.with_suffix(".parquet").exists()
        ]
        tables = [_numbered(pq.read_table(file.with_suffix(".parquet")), file.stem) for file in files]
        figures = pa.concat_tables(tables) if tables else pa.table({})
        found.append(Measured(data, [read_json(file) for file in files], figures))
    return found


def _numbered(table: pa.Table, cell: str) -> pa.Table:
    return table.append_column("cell", pa.repeat(pa.scalar(cell), len(table)))


def lists_of(measured: Measured) -> list[str]:
    """Return the names of the lists that every cell has, in their order."""
    order = dict.fromkeys(measured.figures.column("list").to_pylist())
    cells = len(measured.cells)
    of_cells = measured.figures.group_by(["list", "cell"]).aggregate([]).column("list").to_pylist()
    return [name for name in order if of_cells.count(name) == cells]


def title(name: str) -> str:
    """Return what a list is called on the page."""
    return {CANDIDATE: SERVED, RECALL_ORDER: "Kestrel's candidates in recall order"}.get(name, name)


def best_simple(measured: Measured) -> str:
    """Return the simple list that did best on validation, which every cell of a data set has in common."""
    return str(measured.cells[-1]["best_simple"])


def record_figures(found: Sequence[Measured]) -> list[Figure]:
    """Return what the record holds of every data set."""
    figures = []
    for measured in (each for each in found if each.cells):
        best = best_simple(measured)
        size = f"{measured.name}, {len(measured.cells)} cells"
        target = _mean(measured, best, DECIDING)
        for name in lists_of(measured):
            for metric in ("ndcg_at_10", "recall_at_10", "ndcg_at_100", "recall_at_100"):
                aim = target if (name, metric) == (CANDIDATE, DECIDING) else None
                of = f"{size}: {_HEADINGS[metric]} of {title(name)}"
                value, spread = _mean(measured, name, metric), _spread(measured, name, metric)
                figures.append(Figure(of, value, "ratio", "higher", aim, spread=spread))
            overlaps = _of_rows(measured, name, "overlap")
            figures.append(
                Figure(
                    f"{size}: share of items that two users' tens have in common, {title(name)}",
                    _mean_or_none(overlaps),
                    "ratio",
                    "lower",
                )
            )
        for depth in RECALL_DEPTHS:
            values = [cell["recall"].get(f"recall_at_{depth}") for cell in measured.cells]
            figures.append(
                Figure(f"{size}: Recall@{depth} of the candidates", _mean_or_none(values), "ratio", "higher")
            )
    return figures


def _mean(measured: Measured, name: str, metric: str, asked: Asked = Asked.AT_ORIGIN) -> float | None:
    _, values = measured.values(asked, name, metric, LONG_HISTORY, np.inf)
    return float(values.mean()) if len(values) else None


def _spread(measured: Measured, name: str, metric: str) -> float | None:
    """Return the sample standard deviation over the cells."""
    means = [value for value in _of_rows(measured, name, metric) if value is not None]
    return float(np.std(means, ddof=1)) if len(means) > 1 else None


def _of_rows(measured: Measured, name: str, figure: str) -> list[float | None]:
    """Return a figure of a list from the first table of every cell."""
    return [
        row[figure]
        for cell in measured.cells
        for row in (cell["tables"][0]["rows"] if cell["tables"] else ())
        if row["list"] == name
    ]


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def write_page(found: Sequence[Measured], docs: Path) -> list[Figure]:
    """Write `quality.md` and its plots below `docs`; return the figures for the record."""
    parts = [_INTRODUCTION.format(machine=machine()), _summary(found)]
    for measured in (each for each in found if each.cells):
        plot = docs / "images" / f"lists-{measured.name}.svg"
        drawn = _plot(measured)
        with replacing(plot) as part:
            drawn.savefig(part, format="svg", metadata={"Date": None})
        parts.append(_section(measured, plot.relative_to(docs).as_posix()))
    with replacing(docs / "quality.md") as part:
        part.write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")
    return record_figures(found)


_INTRODUCTION = """# Quality of the lists

`make bench-lists` measures the lists that users would be shown, and writes this page and `docs/results/lists.json`.
Nothing here is edited by hand. `make bench-lists DATA=<folder, zip or file> SOURCE=<yaml>` adds a data set.

- An **origin** is a midnight inside the log. Features, channels, ranker and simple lists are made from events before
  it. Its **answers** are what users liked in the days that follow. What a user had before is shown by no list and is
  no answer.
- The recommender's own engine answers, with users' stored fields, catalogue and item vectors as of the origin and a
  model server that serves the model trained up to there. Nothing of the pipeline is written twice.
- The verdict is about users with at least {LONG} events before the origin. NDCG, recall and MAP are in proportion to
  what the places can hold, so that 1 is a perfect list.
- Simple lists have their variants chosen on **validation** origins, whose answers end before the first **test**
  origin. Every figure below is of test origins. Intervals hold 95 %: users are resampled with all their questions.
- Coverage is the share of the catalogue among anybody's ten. Novelty is the mean of -log2 of the items' share of all
  events. Diversity is the mean share of terms that two items of a list do not have in common. Overlap is the share of
  items that two users' tens have in common.

Measured on {machine}.
""".replace("{LONG}", str(LONG_HISTORY))


def _summary(found: Sequence[Measured]) -> str:
    lines = ["## In one sentence each", ""]
    return "\n".join([*lines, *(f"- **{one.name}**: {verdict(one)}" for one in found), ""])


def verdict(measured: Measured) -> str:
    """Say plainly how the served list does beside the simple ones."""
    if not measured.cells:
        return f"Lists were not measured: {measured.data['note'] or 'nobody could be asked'}."
    names = lists_of(measured)
    if CANDIDATE not in names:
        reasons = {why for cell in measured.cells for why in cell["undefined"].values()}
        return f"The served list was not measured: {'; '.join(sorted(reasons)) or 'no cell has it'}."
    users, own = measured.values(Asked.AT_ORIGIN, CANDIDATE, DECIDING, LONG_HISTORY, np.inf)
    if not len(own):
        return f"Nobody with {LONG_HISTORY} events or more before an origin likes something new after it: no verdict."
    best = best_simple(measured)
    _, other = measured.values(Asked.AT_ORIGIN, best, DECIDING, LONG_HISTORY, np.inf)
    difference = float((own - other).mean())
    bounds = interval(own - other, users, _SEED)
    how = _compared(difference, bounds)
    count = len(np.unique(users))
    shown = f"NDCG@10 {own.mean():.3f} against {other.mean():.3f} of {best}, the best on validation"
    few = f" With {count} users this is a report, not a verdict." if count < _FEW_USERS else ""
    simple = [one["method"] for one in measured.cells[-1]["simple"]]
    losing = [name for name in simple if (_mean(measured, name, DECIDING) or 0.0) > own.mean()]
    also = f" {len(losing)} of {len(simple)} simple lists are better." if losing else ""
    between = "" if bounds is None else f" ({difference:+.3f}, between {bounds[0]:+.3f} and {bounds[1]:+.3f})"
    return f"The served list {how}: {shown}{between}, {count} users.{also}{few}"


def _compared(difference: float, bounds: tuple[float, float] | None) -> str:
    if bounds is None or bounds[0] <= 0 <= bounds[1]:
        return "cannot be told from the best simple list"
    return "beats the best simple list" if difference > 0 else "loses to the best simple list"


def _section(measured: Measured, plot: str) -> str:
    data = measured.data
    told = {cell["origin"].get("origin") for cell in measured.cells}
    origins = [each for each in data["origins"] if each["role"] == "test" and each["origin"] in told]
    shown = ", ".join(f"{each['origin'][:10]} ({each['asked']} users)" for each in origins)
    about = (
        f"{data['events']:,} events, {data['layout']}. Test origins: {shown}; {len(measured.cells)} cells of origin "
        f"and seed. Answers are of {data['days']} days. {_repeats(origins)}"
    )
    lines = [
        f"## {measured.name}",
        "",
        about,
        "",
        f"![NDCG@10 of each list, and recall of each channel]({plot})",
        "",
        f"Asked at the origin, users with {LONG_HISTORY} events or more:",
        "",
        *_list_table(measured, Asked.AT_ORIGIN),
        "",
        "Asked just before their next event:",
        "",
        *_list_table(measured, Asked.BEFORE_NEXT, brief=True),
        "",
        "NDCG@10 by how many events a user has before the origin:",
        "",
        *_history_table(measured),
        "",
        *_recall_lines(measured),
        "",
        *_slice_lines(measured),
        "",
        *_choice_lines(measured),
        "",
    ]
    return "\n".join(lines)


def _repeats(origins: Sequence[Mapping[str, Any]]) -> str:
    """Say how much of what users liked is no answer, because they had it before."""
    shares = [each["repeats"] for each in origins if each["repeats"]]
    if not shares:
        return "Nobody likes again what they had before."
    low, high = (f"{100 * bound:.0f}" for bound in (min(shares), max(shares)))
    between = f"{low} %" if low == high else f"{low} to {high} %"
    return f"Of the likes after an origin, {between} are of items that the user had before: they are left out."


def _list_table(measured: Measured, asked: Asked, *, brief: bool = False) -> list[str]:
    metrics = list(LIST_METRICS)
    extra = {} if brief else _OF_LISTS
    rows = [["list", "95 % of NDCG@10", *(_HEADINGS[name] for name in metrics), *extra.values()]]
    for name in lists_of(measured):
        users, deciding = measured.values(asked, name, DECIDING, LONG_HISTORY, np.inf)
        bounds = interval(deciding, users, _SEED) if len(deciding) else None
        shown = "" if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}"
        figures = [_mean(measured, name, metric, asked) for metric in metrics]
        others = [_mean_or_none(_of_rows(measured, name, figure)) for figure in extra]
        rows.append([title(name), shown, *map(_number, figures), *map(_number, others)])
    return _markdown(rows)


def _history_table(measured: Measured) -> list[str]:
    groups = {
        "0": (0, 0),
        f"1 to {LONG_HISTORY - 1}": (1, LONG_HISTORY - 1),
        f"{LONG_HISTORY}+": (LONG_HISTORY, np.inf),
    }
    rows = [["list", *groups]]
    for name in lists_of(measured):
        values = [measured.values(Asked.AT_ORIGIN, name, DECIDING, *bounds)[1] for bounds in groups.values()]
        rows.append([title(name), *(_number(float(each.mean()) if len(each) else None) for each in values)])
    counts = [len(measured.values(Asked.AT_ORIGIN, CANDIDATE, DECIDING, *bounds)[1]) for bounds in groups.values()]
    return _markdown([*rows, ["questions", *map(str, counts)]])


def _recall_lines(measured: Measured) -> list[str]:
    told = [cell["recall"] for cell in measured.cells if cell["recall"]]
    if not told:
        return ["Recall was not measured: nobody was asked whom verdicts are about."]
    mean = {key: _mean_or_none([each[key] for each in told]) for key in told[0] if key not in {"channels", "ranked"}}
    rows = [["channel", *(f"Recall@{depth}" for depth in RECALL_DEPTHS), "adds"]]
    names = dict.fromkeys(channel["channel"] for each in told for channel in each["channels"])
    for name in names:
        own = [channel for each in told for channel in each["channels"] if channel["channel"] == name]
        keys = [*(f"recall_at_{depth}" for depth in RECALL_DEPTHS), "adds"]
        rows.append([name, *(_number(_mean_or_none([channel[key] for channel in own])) for key in keys)])
    rows.append(["together", *(_number(mean[f"recall_at_{depth}"]) for depth in RECALL_DEPTHS), ""])
    about = (
        f"The best order of the {told[0]['ranked']} candidates that are ranked has an NDCG@10 of "
        f"{_number(mean['best_possible'])}: recall loses {_number(mean['lost_by_recall'])}, ranking "
        f"{_number(mean['lost_by_ranking'])}. A channel adds the share of the answers that no other channel finds "
        f"among its first {RECALL_DEPTHS[-1]}:"
    )
    return [
        about,
        "",
        *_markdown(rows),
    ]


def _slice_lines(measured: Measured) -> list[str]:
    last = measured.cells[-1]
    origin = last["origin"]["origin"][:10]
    lines = [f"Share of the answers of all users that are among the first ten and hundred, at the origin {origin}:"]
    for kind, slices in last["slices"].items():
        if not slices:
            continue
        keys = [key for key in slices[0] if key not in {"slice", "answers"}]
        rows = [[kind, "answers", *(key.replace(CANDIDATE, "served") for key in keys)]]
        rows += [[each["slice"], str(each["answers"]), *(_number(each[key]) for key in keys)] for each in slices]
        lines += ["", *_markdown(rows)]
    return lines


def _choice_lines(measured: Measured) -> list[str]:
    rows = [["simple list", "chosen on validation", "of", "NDCG@10 there"]]
    rows += [
        [one["method"], one["variant"] or "-", str(one["tried"]), _number(one["validation"])]
        for one in measured.cells[-1]["simple"]
    ]
    return _markdown(rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = rows
    return [
        f"| {' | '.join(head)} |",
        f"|{'|'.join(['---'] * len(head))}|",
        *(f"| {' | '.join(row)} |" for row in body),
    ]


def _plot(measured: Measured) -> Plot:
    from matplotlib.figure import Figure as Plot  # noqa: PLC0415 - the name of results' Figure is taken

    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["svg.hashsalt"] = measured.name
    figure = Plot(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_lists(left, measured)
    _draw_recall(right, measured)
    return figure


def _draw_lists(axes: Any, measured: Measured) -> None:  # noqa: ANN401 - Matplotlib ships no types
    names = lists_of(measured)[::-1]
    for place, name in enumerate(names):
        users, values = measured.values(Asked.AT_ORIGIN, name, DECIDING, LONG_HISTORY, np.inf)
        bounds = interval(values, users, _SEED) if len(values) else None
        colour = "#c44e52" if name == CANDIDATE else "#dd8452" if name == RECALL_ORDER else "#4c72b0"
        axes.barh(place, values.mean() if len(values) else 0.0, color=colour)
        if bounds is not None:
            axes.plot(bounds, (place, place), color="black", linewidth=1.5)
    axes.set_yticks(range(len(names)), [title(name) for name in names])
    axes.set_xlabel("NDCG@10, with 95 % intervals")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_recall(axes: Any, measured: Measured) -> None:  # noqa: ANN401 - as above
    told = [cell["recall"] for cell in measured.cells if cell["recall"]]
    names = dict.fromkeys(channel["channel"] for each in told for channel in each["channels"])
    for name in names:
        own = [channel for each in told for channel in each["channels"] if channel["channel"] == name]
        heights = [_mean_or_none([channel[f"recall_at_{depth}"] for channel in own]) for depth in RECALL_DEPTHS]
        axes.plot(RECALL_DEPTHS, heights, marker="o", label=name)
    if told:
        together = [_mean_or_none([each[f"recall_at_{depth}"] for each in told]) for depth in RECALL_DEPTHS]
        axes.plot(RECALL_DEPTHS, together, marker="o", color="black", label="together")
        axes.legend(frameon=False)
    axes.set_xlabel("candidates")
    axes.set_ylabel("share of the answers")
    axes.set_ylim(0, 1)
    axes.spines[["top", "right"]].set_visible(False)
