"""Matplotlib set up for our pages: a figure becomes an <svg> element, and the same figure the same text.

Matplotlib's settings belong to the process, so that every figure of the data plane is drawn through this module:
what a figure looks like must not depend on which other report was imported before.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import matplotlib as mpl

if TYPE_CHECKING:
    from matplotlib.figure import Figure

mpl.use("Agg")
mpl.rcParams["svg.hashsalt"] = "kestrel"  # equal figures are equal bytes
mpl.rcParams["svg.fonttype"] = "none"  # text stays text: smaller, and a reader can search it
mpl.rcParams["text.parse_math"] = False  # a dollar sign in a source's words begins no formula
mpl.rcParams["font.family"] = ["DejaVu Sans", "sans-serif"]
import matplotlib.pyplot as plt  # noqa: E402 - the backend comes first: there is no screen

__all__ = ["INK", "as_svg", "plt", "shortened"]

INK = "#212529"
_LONGEST = 28


def shortened(name: str) -> str:
    """Return a source's word at a length that a plot has room for."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1].rstrip()}…"


def as_svg(figure: Figure) -> str:
    """Return the <svg> element alone, without date, and close the figure: no XML declaration inside HTML."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = stream.getvalue()
    return text[text.index("<svg") :]
