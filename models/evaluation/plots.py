"""ROC and calibration plots that a person likes to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl

from models.evaluation.metrics import auc, calibration, roc

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

mpl.use("Agg")
mpl.rcParams["svg.hashsalt"] = "kestrel"  # equal figures are equal bytes
import matplotlib.pyplot as plt  # noqa: E402 - the backend comes first: there is no screen

_COLOURS = ("#0f6cbd", "#d9480f", "#2b8a3e", "#7048a8", "#868e96")
_INK, _GRID = "#212529", "#e9ecef"


def _axes(title: str, x: str, y: str, height: float = 4.4) -> tuple[Figure, Any]:
    figure, axes = plt.subplots(figsize=(5.4, height), dpi=110, layout="constrained")
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=_INK)
    axes.set_xlabel(x, color=_INK)
    axes.set_ylabel(y, color=_INK)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _diagonal(axes: Any) -> None:
    axes.plot([0, 1], [0, 1], color="#adb5bd", linestyle=(0, (4, 4)), linewidth=1)


def roc_figure(rows: str, labels: NDArray[Any], scores: Mapping[str, NDArray[Any]]) -> Figure:
    """Return the ROC curve of each named score; `rows` says of which rows: `test`."""
    figure, axes = _axes(f"ROC on the {rows} rows", "false positive rate", "true positive rate")
    _diagonal(axes)
    for colour, (name, values) in zip(_COLOURS * 2, scores.items(), strict=False):
        axes.plot(*roc(labels, values), color=colour, linewidth=2, label=f"{name} — AUC {auc(labels, values):.4f}")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.005)
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    return figure


def calibration_figure(rows: str, labels: NDArray[Any], probabilities: Mapping[str, NDArray[Any]], bins: int) -> Figure:
    """Return predicted against observed for each named probability; the dotted line is perfect."""
    figure, axes = _axes(f"Calibration on the {rows} rows", "predicted probability", "observed share of positives")
    _diagonal(axes)
    for colour, (name, values) in zip(_COLOURS * 2, probabilities.items(), strict=False):
        measured = calibration(labels, values, bins)
        label = f"{name} — ECE {measured.expected_calibration_error:.3f}"
        axes.plot(measured.predicted, measured.observed, color=colour, linewidth=2, marker="o", label=label)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    return figure


def importance_figure(importance: Mapping[str, Any], most: int = 20) -> Figure:
    """Return bars of the inputs whose permutation costs most, as `permutation_importance` found, with their spread."""
    shown = [each for each in importance["features"] if each["drop"] is not None][:most]
    figure, axes = _axes(
        "Importance of inputs, test rows",
        f"drop of {importance['metric']} if permuted",
        "",
        0.9 + 0.24 * max(len(shown), 8),
    )
    places = range(len(shown))
    axes.barh(
        places,
        [each["drop"] for each in shown],
        xerr=[each["spread"] for each in shown],
        color=_COLOURS[0],
        ecolor=_COLOURS[4],
        height=0.7,
    )
    axes.set_yticks(places, [each["feature"] for each in shown], fontsize=8)
    axes.invert_yaxis()
    return figure
