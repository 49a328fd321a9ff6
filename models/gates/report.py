"""The gates' report and the model's card, for a person: HTML files that need nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.pages import page_environment

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEMPLATES = Path(__file__).parent / "templates"
_NAMES = {"champion": "Champion", "means": "User mean + item mean", "popularity": "Popularity"}
_SPLITS = {"test": "Features as of the moment", "test_as_of_refresh": "Features as of the last refresh"}
_METRICS = {
    "auc": "AUC",
    "gauc": "GAUC",
    "log_loss": "Log loss",
    "brier": "Brier",
    "ece": "ECE",
    "observed_over_expected": "Observed / expected",
}

_OF_SLICES = ("auc", "gauc", "log_loss", "brier", "observed_over_expected")


def render(report: Mapping[str, Any], curves: Mapping[str, str], importance: str = "") -> str:
    """Return the HTML of `report` (what `report.json` holds).

    Args:
        report: What is told.
        curves: Title → SVG.
        importance: The bars of the inputs, an SVG; empty where there are none.
    """
    drawn = {title: _inline(svg) for title, svg in curves.items()}
    return _page("report", report, splits=_SPLITS, curves=drawn, importance=importance and _inline(importance))


def render_card(report: Mapping[str, Any], run: Mapping[str, Any], signature: Mapping[str, Any]) -> str:
    """Return the HTML of a version's model card (Mitchell et al. 2019).

    Args:
        report: What `report.json` holds.
        run: What `run.json` holds.
        signature: What the SavedModel says that it takes, and its objective.
    """
    return _page("card", report, run=run, signature=signature)


def _page(template: str, report: Mapping[str, Any], **more: object) -> str:
    environment = page_environment(_TEMPLATES)
    environment.filters["figure"] = _figure
    return environment.get_template(f"{template}.html.jinja").render(
        report=report,
        names=_names(report),
        metrics=_METRICS,
        slice_metrics={name: title for name, title in _METRICS.items() if name in _of_slices(report)},
        **more,
    )


def _of_slices(report: Mapping[str, Any]) -> set[str]:
    """Return the metrics that the candidate has of some slice: others would be columns of dashes."""
    figures = [each["figures"]["candidate"] for found in report["slices"].values() for each in found]
    return {name for name in _OF_SLICES if any(each.get(name) is not None for each in figures)}


def _names(report: Mapping[str, Any]) -> dict[str, str]:
    """Return row → its title, in the order of the table."""
    own = {"candidate": f"Candidate ({report['spec']})"}
    return {row: (own | _NAMES).get(row, row) for row in report["metrics"]["test"]}


def _figure(value: float | None) -> str:
    """Return a number as people read it: four digits after the point, more where it is tiny."""
    if value is None:
        return "–"  # noqa: RUF001 - an en dash stands for "none" in the table
    if value and abs(value) < 1e-3:  # noqa: PLR2004 - where four digits would show zeros
        return f"{value:.2g}"
    return f"{value:.4f}"


def _inline(svg: str) -> str:
    """Return the <svg> element alone: no XML declaration inside HTML."""
    return svg[svg.index("<svg") :]
