"""The plots of the checks' report: the same data is the same text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.ticker import NullFormatter, PercentFormatter, StrMethodFormatter

from pipelines.reports.svg import INK, as_svg, plt, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from matplotlib.figure import Figure

    from pipelines.checks.windows import Window

NOW, PAST, QUIET = "#0f6cbd", "#adb5bd", "#868e96"
_GRID, _PAST_SHADE, _NOW_SHADE = "#e9ecef", "#f1f3f5", "#dbeafe"
_SHORT_LABELS = 36
"""Characters that fit below the columns of a plot, all labels together."""
_HALF_WIDTH, WHOLE_WIDTH, _HEIGHT = 5.5, 11.2, 3.3


@dataclass(frozen=True, slots=True)
class Shares:
    """Two distributions over the same labels, each of which sums to one."""

    labels: Sequence[str]
    now: Sequence[float]
    past: Sequence[float]
    """Empty where there is no history."""


def events_per_day(events: Mapping[datetime, int], interval: Window, past: Window | None) -> str:
    """Plot the events of every day, the interval and what it is compared with marked."""
    figure, axes = _axes("Events per day", "", "events", WHOLE_WIDTH, 2.9)
    days = sorted(events)
    shown = [events[day] for day in days]
    if past:
        axes.axvspan(past.start, past.end, color=_PAST_SHADE, zorder=0, label="compared with")
    axes.axvspan(interval.start, interval.end, color=_NOW_SHADE, zorder=0, label="this interval")
    colours = [NOW if day >= interval.start else QUIET for day in days]
    axes.bar(days, shown, width=0.9, align="edge", color=colours)
    locator = AutoDateLocator(minticks=4, maxticks=12)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.margins(x=0.01)
    axes.legend(loc="upper left", frameon=False, fontsize=8.5, ncols=2)
    return as_svg(figure)


def shares(title: str, data: Shares) -> str:
    """Plot two distributions beside each other: columns where the labels are short, else bars, the first at the top."""
    names = [shortened(name) for name in data.labels]
    places = range(len(names))
    sideways = sum(map(len, names)) > _SHORT_LABELS
    height = max(_HEIGHT, 0.95 + 0.27 * len(names)) if sideways else _HEIGHT
    figure, axes = _axes(
        title, "share of events" if sideways else "", "" if sideways else "share of events", height=height
    )
    draw, thickness = (axes.barh, "height") if sideways else (axes.bar, "width")
    both = ((-0.2, data.past, PAST, "recent past"), (0.2, data.now, NOW, "this interval"))
    drawn = both if data.past else ((0, data.now, NOW, "this interval"),)
    for shift, values, colour, label in drawn:
        draw([place + shift for place in places], values, color=colour, label=label, **{thickness: 0.4})
    if sideways:
        axes.set_yticks(places, names, fontsize=8.5)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
    else:
        axes.set_xticks(places, names, fontsize=9)
        axes.grid(visible=False, axis="x")
    (axes.xaxis if sideways else axes.yaxis).set_major_formatter(PercentFormatter(1))
    figure.legend(loc="outside upper right", frameon=False, fontsize=8.5, ncols=2)
    return as_svg(figure)


def rank_frequency(title: str, label: str, now: Sequence[int], past: Sequence[int]) -> str:
    """Plot counts in falling order against their rank, both axes logarithmic: a straight line is Zipf's law."""
    figure, axes = _axes(title, label, "events")
    for counts, colour, name in ((past, PAST, "the window before"), (now, NOW, "this interval")):
        if counts:
            ranks, values = _thinned(counts)
            axes.plot(ranks, values, color=colour, linewidth=2, label=f"{name} ({len(counts):,})")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axis.set_minor_formatter(NullFormatter())
    if now or past:
        axes.legend(loc="best", frameon=False, fontsize=8.5)
    return as_svg(figure)


def bars(
    title: str, label: str, values: Mapping[str, float], *, percent: bool = False, width: float = _HALF_WIDTH
) -> str:
    """Plot named figures as horizontal bars, in the given order from the top, each with its figure at its end."""
    figure, axes = _axes(title, label, "", width, max(1.6, 0.95 + 0.3 * len(values)))
    names = [shortened(name) for name in values]
    drawn = axes.barh(range(len(names)), list(values.values()), color=NOW, height=0.62)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.invert_yaxis()
    texts = [f"{value:.1%}" if percent else f"{value:,.0f}" for value in values.values()]
    axes.bar_label(drawn, texts, padding=3, fontsize=8.5, color=INK)
    if percent:
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlim(0, max(0.01, 1.15 * max(values.values(), default=0)))
    else:
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.margins(x=0.12)
    axes.grid(visible=False, axis="y")
    return as_svg(figure)


def _axes(title: str, x: str, y: str, width: float = _HALF_WIDTH, height: float = _HEIGHT) -> tuple[Figure, Any]:
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold", color=INK)
    axes.set_xlabel(x, color=INK, fontsize=9)
    axes.set_ylabel(y, color=INK, fontsize=9)
    axes.tick_params(labelsize=8.5, color=_GRID, labelcolor=INK)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color("#ced4da")
    return figure, axes


def _thinned(counts: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return about a hundred ranks, evenly spaced on a logarithmic axis, and their counts."""
    size = len(counts)
    ranks = sorted({min(size, max(1, round(size ** (step / 120)))) for step in range(121)})
    return ranks, [counts[rank - 1] for rank in ranks]
