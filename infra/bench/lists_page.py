"""Cells → the record of the benchmark, and `docs/quality.md`: tables, plots, plain sentences; what loses included."""

from __future__ import annotations

import operator
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np

from feature_repo.contracts.channels import KNOWN_CHANNELS
from feature_repo.contracts.list_policy import ListPolicy
from feature_repo.contracts.publishing import read_json, replacing
from feature_repo.contracts.questions import LONG_HISTORY, Asked
from feature_repo.list_metrics import DECIDING, LIST_METRICS
from infra.bench.lists_targets import targets
from infra.bench.results import Figure
from serving.lists.intervals import interval
from serving.lists.report import CANDIDATE, NOT_RERANKED, RECALL_DEPTHS, UNRANKED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure as Plot

    from infra.bench.lists_cells import Measured

mpl.use("Agg")

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


def title(name: str) -> str:
    """Return what a list is called on the page."""
    own = {CANDIDATE: SERVED, NOT_RERANKED: "Kestrel, not re-ranked", UNRANKED: "Kestrel, unranked"}
    return own.get(name, name)


def record_figures(found: Sequence[Measured]) -> list[Figure]:
    """Return what the record holds of every data set."""
    figures = []
    for measured in (each for each in found if each.cells):
        size = f"{measured.name}, {_count(len(measured.cells), 'cell')}"
        for name in measured.lists:
            for metric in ("ndcg_at_10", "recall_at_10", "ndcg_at_100", "recall_at_100"):
                of = f"{size}: {_HEADINGS[metric]} of {title(name)}"
                value, spread = measured.mean(name, metric), measured.spread(name, metric)
                figures.append(Figure(of, value, "ratio", "higher", spread=spread))
            overlap = measured.of_lists(name, "overlap")
            of = f"{size}: share of items that two users' tens have in common, {title(name)}"
            figures.append(Figure(of, overlap, "ratio", "lower"))
        for depth in RECALL_DEPTHS:
            value = measured.of_recall(f"recall_at_{depth}")
            figures.append(Figure(f"{size}: Recall@{depth} of the candidates", value, "ratio", "higher"))
        figures += [replace(each, name=f"{size}: {each.name}") for each in targets(measured)]
    return figures


def write_page(found: Sequence[Measured], docs: Path) -> list[Figure]:
    """Write `quality.md` and its plots below `docs`; return the figures for the record.

    What the page says of data sets that are not in `found`, measured elsewhere perhaps, stays.
    """
    page = docs / "quality.md"
    verdicts, sections = _parts(page.read_text(encoding="utf-8") if page.exists() else "")
    for measured in found:
        verdicts[measured.name] = f"- **{measured.name}**: {verdict(measured)}"
        sections.pop(measured.name, None)
        if not measured.cells:
            continue
        plot = docs / "images" / f"lists-{measured.name}.svg"
        drawn = _plot(measured)
        with replacing(plot) as part:
            drawn.savefig(part, format="svg", metadata={"Date": None})
        sections[measured.name] = _section(measured, plot.relative_to(docs).as_posix())
    told = "\n".join([_SUMMARY, "", *(verdicts[name] for name in sorted(verdicts)), ""])
    parts = [_INTRODUCTION, told, *(sections[name] for name in sorted(sections))]
    with replacing(page) as part:
        part.write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")
    return _figures_of_others(docs / "results" / "lists.json", found) + record_figures(found)


def _figures_of_others(record: Path, found: Sequence[Measured]) -> list[Figure]:
    """Return the figures that a record has of data sets that are not in `found`."""
    if not record.exists():
        return []
    stored: list[dict[str, Any]] = read_json(record)["figures"]  # type: ignore[assignment]  # as `write_results` wrote it
    names = {measured.name for measured in found}
    return [Figure(**each) for each in stored if each["name"].partition(",")[0] not in names]


_SUMMARY = "## In one sentence each"


def _parts(page: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return what a page says of each data set: its verdict's line, and its section."""
    verdicts = {line.split("**")[1]: line for line in page.splitlines() if line.startswith("- **") and "**: " in line}
    pieces = [f"## {piece}".rstrip() + "\n" for piece in page.split("\n## ")[1:]]
    sections = {piece.splitlines()[0].removeprefix("## "): piece for piece in pieces}
    sections.pop(_SUMMARY.removeprefix("## "), None)
    return verdicts, sections


_INTRODUCTION = """# Quality of the lists

`make bench-lists` measures the lists that users would be shown, and writes this page and `docs/results/lists.json`.
`make bench-lists DATA=<folder, zip or file> SOURCE=<yaml>` measures another data set and adds it; `ARGS="--origins n
--seeds n"` takes more or fewer test origins and trainings (3 and 2), `ARGS="--docs <folder>"` leaves this page alone.
Nothing here is edited by hand.

- An **origin** is a midnight inside the log. Features, channels, ranker and simple lists are made from events before
  it. Its **answers** are what users liked in the days that follow. No list shows what a user had before, and it is no
  answer.
- The recommender's own engine answers, on stored fields, catalogue and item vectors as of the origin. It asks a model
  that was trained up to there.
- Users with at least {LONG} events before the origin decide the verdict.
- Train origins come first: models that order lists learn from their answers. Validation origins follow, and choose
  each simple list's variant, and among several models the one whose lists have the highest NDCG@10. Test origins judge.
  The answers of each origin end at or before the next one. The tables show test origins, the last one of each data set
  what was chosen.
- NDCG, MAP and the Recall of lists are in proportion to what the places can hold: 1 is a perfect list. The Recall of
  candidates and channels is the share of all answers.
- Intervals hold 95 %: users are resampled with all their questions.
- Coverage is the share of the catalogue that at least one user sees in the first ten. Novelty is the mean of -log2 of
  the items' share of all events. Diversity is the mean share of terms that two items of a list do not have in common.
  Overlap is the share of items that two users' tens have in common.
- "-" stands for a figure that is undefined: nobody was asked, or items have no terms.
""".replace("{LONG}", str(LONG_HISTORY))


def verdict(measured: Measured) -> str:
    """Say plainly how the served list does beside the simple ones."""
    if not measured.cells:
        return f"Lists were not measured: {measured.data['note'] or 'nobody could be asked'}."
    names = measured.lists
    if CANDIDATE not in names:
        reasons = {why for cell in measured.cells for why in cell["undefined"].values()}
        return f"The served list was not measured: {'; '.join(sorted(reasons)) or 'no cell has it'}."
    users, own = measured.values(Asked.AT_ORIGIN, CANDIDATE, DECIDING, LONG_HISTORY, np.inf)
    if not len(own):
        return f"Nobody with {LONG_HISTORY} events or more before an origin likes something new after it: no verdict."
    best = measured.best_simple
    _, other = measured.values(Asked.AT_ORIGIN, best, DECIDING, LONG_HISTORY, np.inf)
    difference = float((own - other).mean())
    bounds = interval(own - other, users, _SEED)
    how = _compared(difference, bounds)
    count = len(np.unique(users))
    shown = f"NDCG@10 {own.mean():.3f} against {other.mean():.3f} of {best}, the simple list chosen on validation"
    few = f" With {count} users this is a report, not a verdict." if count < _FEW_USERS else ""
    simple = [one["method"] for one in measured.cells[-1]["simple"]]
    losing = [name for name in simple if (measured.mean(name, DECIDING) or 0.0) > own.mean()]
    also = f" {len(losing)} of {len(simple)} simple lists are better." if losing else ""
    unranked = measured.mean(UNRANKED, DECIDING)
    if unranked is not None and unranked > own.mean():
        also += f" Ranking makes the lists worse: unranked they reach {unranked:.3f}."
    between = "" if bounds is None else f" ({difference:+.3f}, between {bounds[0]:+.3f} and {bounds[1]:+.3f})"
    return f"The served list {how}: {shown}{between}, {count} users.{also}{few}"


def _compared(difference: float, bounds: tuple[float, float] | None) -> str:
    if bounds is None or bounds[0] <= 0 <= bounds[1]:
        return "cannot be told from the best simple list"
    return "beats the best simple list" if difference > 0 else "loses"


def _section(measured: Measured, plot: str) -> str:
    data = measured.data
    told = {cell["origin"].get("origin") for cell in measured.cells}
    origins = [each for each in data["origins"] if each["role"] == "test" and each["origin"] in told]
    shown = ", ".join(f"{each['origin'][:10]} ({each['asked']} users)" for each in origins)
    about = (
        f"{data['events']:,} events, {data['layout']}. Test origins: {shown}; {_count(len(measured.cells), 'cell')} of "
        f"origin and seed. Answers are of {data['days']} days. {_repeats(origins)}"
    )
    lines = [
        f"## {measured.name}",
        "",
        about,
        "",
        f"![NDCG@10 of each list, and recall of each channel]({plot})",
        "",
        "### Targets",
        "",
        *_target_table(measured),
        "",
        *_policy_lines(measured),
        f"### Users with {LONG_HISTORY} events or more, asked at the origin",
        "",
        *_list_table(measured, Asked.AT_ORIGIN),
        "",
        _before_next(measured),
        "",
        "### NDCG@10 by how many events a user has before the origin",
        "",
        *_history_table(measured),
        "",
        "### Recall and ranking",
        "",
        *_recall_lines(measured),
        "",
        *_learner_lines(measured),
        "### By item",
        "",
        *_slice_lines(measured),
        "",
        "### Variants, as validation chose them",
        "",
        *_choice_lines(measured),
        "",
    ]
    return "\n".join(lines)


def _repeats(origins: Sequence[Mapping[str, Any]]) -> str:
    """Say how much of what users liked is no answer, because they had it before."""
    shares = [each["repeats"] for each in origins if each["repeats"]]
    if not shares:
        return "No user likes an item twice."
    low, high = (f"{100 * bound:.0f}" for bound in (min(shares), max(shares)))
    between = f"{low} %" if low == high else f"{low} to {high} %"
    return f"Of the likes after an origin, {between} are of items that the user had before: they are left out."


def _target_table(measured: Measured) -> list[str]:
    rows = [["target", "wanted", "measured", ""]]
    for each in targets(measured):
        sign, reaches = ("≥", operator.ge) if each.better == "higher" else ("≤", operator.le)
        if each.value is None or each.target is None:
            verdict = "not measured"
        else:
            verdict = "met" if reaches(each.value, each.target) else "missed"
        rows.append([each.name, f"{sign} {_number(each.target)}", _number(each.value), verdict])
    return _markdown(rows)


def _policy_lines(measured: Measured) -> list[str]:
    """Say what re-ranking mixes into the model's order, and which quotas were fitted; nothing of older cells."""
    policies = [ListPolicy.from_json(cell["policy"], measured.name) for cell in measured.cells if "policy" in cell]
    if not policies:
        return []
    shares = Counter(
        f"{each.reranking.share:.0%} of {each.reranking.channel}" if each.reranking.share else "nothing"
        for each in policies
    )
    mixed = ", ".join(f"{what} in {_count(cells, 'cell')}" for what, cells in sorted(shares.items()))
    fitted = Counter(
        f"{name} {share} for {KNOWN_CHANNELS[name].quota}"
        for each in policies
        for name, share in each.quotas.items()
        if share != KNOWN_CHANNELS[name].quota
    )
    changed = ", ".join(f"{what} in {_count(cells, 'cell')}" for what, cells in sorted(fitted.items()))
    said = (
        f"Mixed of a personal order into the model's, as validation chose: {mixed}. Quotas that it changed: "
        f"{changed or 'none'}. [Decision 121](decisions/0121-lists-are-re-ranked-and-quotas-fitted.md) and "
        "[119](decisions/0119-lists-are-learned-from-what-recall-offered.md) say what was tried beside that."
    )
    return [said, ""]


def _list_table(measured: Measured, asked: Asked) -> list[str]:
    metrics = list(LIST_METRICS)
    rows = [["list", "95 % of NDCG@10", *(_HEADINGS[name] for name in metrics), *_OF_LISTS.values()]]
    for name in measured.lists:
        users, deciding = measured.values(asked, name, DECIDING, LONG_HISTORY, np.inf)
        bounds = interval(deciding, users, _SEED) if len(deciding) else None
        shown = "" if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}"
        figures = [measured.mean(name, metric, asked) for metric in metrics]
        others = [measured.of_lists(name, figure) for figure in _OF_LISTS]
        rows.append([title(name), shown, *map(_number, figures), *map(_number, others)])
    return _markdown(rows)


def _before_next(measured: Measured) -> str:
    """Say what changes when users are asked just before their next event: no event lies between."""
    earlier, later = (measured.mean(CANDIDATE, DECIDING, asked) for asked in Asked)
    return (
        f"Asked just before their next event, the same users get lists with an NDCG@10 of {_number(later)}, against "
        f"{_number(earlier)} at the origin: nothing happened to them in between, only the clock moved."
    )


def _history_table(measured: Measured) -> list[str]:
    groups = {
        "0": (0, 0),
        f"1 to {LONG_HISTORY - 1}": (1, LONG_HISTORY - 1),
        f"{LONG_HISTORY}+": (LONG_HISTORY, np.inf),
    }
    rows = [["list", *groups]]
    for name in measured.lists:
        values = [measured.values(Asked.AT_ORIGIN, name, DECIDING, *bounds)[1] for bounds in groups.values()]
        rows.append([title(name), *(_number(float(each.mean()) if len(each) else None) for each in values)])
    counts = [len(measured.values(Asked.AT_ORIGIN, CANDIDATE, DECIDING, *bounds)[1]) for bounds in groups.values()]
    return _markdown([*rows, ["questions", *map(str, counts)]])


def _recall_lines(measured: Measured) -> list[str]:
    if not any(cell["recall"] for cell in measured.cells):
        return ["Recall was not measured: nobody was asked whom verdicts are about."]
    keys = [f"recall_at_{depth}" for depth in RECALL_DEPTHS]
    rows = [["channel", *(f"Recall@{depth}" for depth in RECALL_DEPTHS), "adds"]]
    rows += [
        [name, *(_number(measured.of_channel(name, key)) for key in (*keys, "adds"))] for name in measured.channels
    ]
    rows.append(["blended", *(_number(measured.of_recall(key)) for key in keys), ""])
    possible, by_recall, by_ranking = (
        _number(measured.of_recall(key)) for key in ("best_possible", "lost_by_recall", "lost_by_ranking")
    )
    ranking = (
        f"The best order of the candidates that are ranked has an NDCG@10 of {possible}: recall loses {by_recall}, "
        f"ranking {by_ranking}."
    )
    channels = (
        "What channels find of these users' answers, and what they find blended by their quotas. A channel adds the "
        f"share that no other channel finds among its first {RECALL_DEPTHS[-1]}."
    )
    return [ranking, "", channels, "", *_markdown(rows)]


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


def _learner_lines(measured: Measured) -> list[str]:
    """Return what others make of the rows that the shipped model learned from; nothing where none could."""
    if not measured.learners:
        return []
    names = list(dict.fromkeys(name for each in measured.learners for name in each))
    means = {name: float(np.mean([each[name] for each in measured.learners if name in each])) for name in names}
    ordered = sorted(means, key=lambda name: -means[name])
    count = len(measured.learners)
    return [
        "### The same candidates and inputs, ordered by others",
        "",
        (
            "NDCG@10 among the candidates at the test origin of the rows that the spec `lists` learned from"
            f"{f': mean of {count} origins' if count > 1 else ''}."
        ),
        "",
        *_markdown([["learner", "NDCG@10"], *([name, f"{means[name]:.3f}"] for name in ordered)]),
        "",
    ]


def _choice_lines(measured: Measured) -> list[str]:
    rows = [["simple list", "chosen on validation", "of", "NDCG@10 there"]]
    rows += [
        [one["method"], one["variant"] or "-", str(one["tried"]), _number(one["validation"])]
        for one in measured.cells[-1]["simple"]
    ]
    return _markdown(rows)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


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
    names = measured.lists[::-1]
    for place, name in enumerate(names):
        users, values = measured.values(Asked.AT_ORIGIN, name, DECIDING, LONG_HISTORY, np.inf)
        bounds = interval(values, users, _SEED) if len(values) else None
        colour = "#c44e52" if name == CANDIDATE else "#dd8452" if name == UNRANKED else "#4c72b0"
        axes.barh(place, values.mean() if len(values) else 0.0, color=colour)
        if bounds is not None:
            axes.plot(bounds, (place, place), color="black", linewidth=1.5)
    axes.set_yticks(range(len(names)), [title(name) for name in names])
    axes.set_xlabel("NDCG@10, with 95 % intervals")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_recall(axes: Any, measured: Measured) -> None:  # noqa: ANN401 - as above
    keys = [f"recall_at_{depth}" for depth in RECALL_DEPTHS]
    names = measured.channels
    for name in names:
        axes.plot(RECALL_DEPTHS, [measured.of_channel(name, key) for key in keys], marker="o", label=name)
    if names:
        blended = [measured.of_recall(key) for key in keys]
        axes.plot(RECALL_DEPTHS, blended, marker="o", color="black", label="blended")
        axes.legend(frameon=False)
    axes.set_xlabel("candidates")
    axes.set_ylabel("share of the answers")
    axes.set_ylim(0, 1)
    axes.spines[["top", "right"]].set_visible(False)
