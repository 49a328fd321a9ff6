"""Vectors laid flat, for the eye: t-SNE, coloured by each item's first term."""

from __future__ import annotations

import io
from collections import Counter
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

from feature_repo.contracts.embeddings import VECTOR
from pipelines.embeddings.vectors import matrix

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from pipelines.embeddings.report import Description

mpl.use("Agg")
mpl.rcParams["svg.hashsalt"] = "kestrel"  # equal figures are equal bytes
import matplotlib.pyplot as plt  # noqa: E402 - the backend comes first: there is no screen

_COLOURS = ("#0f6cbd", "#d9480f", "#2b8a3e", "#7048a8", "#c2255c", "#22b8cf", "#e0a800", "#5c3d2e")
_OTHER_COLOUR = "#c4cad1"
_OTHER = "other"
_INK = "#212529"
_PERPLEXITY, _ITERATIONS = 30.0, 500
_SEED = 7
_NAMED = 60
"""So many items, those that most people liked, get their names beside their points, as far as there is room."""
_LETTER_WIDTH, _LINE_HEIGHT = 5.4, 11.0
"""Of those names, in pixels, roughly."""


def projection_svg(name: str, snapshot: pa.Table, items: Sequence[str], descriptions: Mapping[str, Description]) -> str:
    """Return the picture of a snapshot as an <svg> element; the first of `items` are named."""
    places = {item: place for place, item in enumerate(snapshot.column("item_id").to_pylist())}
    shown = [item for item in items if item in places]
    vectors = matrix(snapshot.column(VECTOR.name))[[places[item] for item in shown]]
    terms = [next(iter(descriptions[item].terms), _OTHER) if item in descriptions else _OTHER for item in shown]
    names = [descriptions[item].name if item in descriptions else item for item in shown[:_NAMED]]
    return _draw(name, flat(vectors), terms, names)


def flat(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return `[items, 2]`; the same vectors give the same places, whatever number of cores."""
    from sklearn.manifold import TSNE  # noqa: PLC0415 - heavy
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 - comes with it

    if len(vectors) < 4:  # noqa: PLR2004 - t-SNE needs neighbours
        return np.asarray(vectors[:, :2], dtype=np.float64)
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    layout = TSNE(
        metric="cosine", init="pca", perplexity=perplexity, max_iter=_ITERATIONS, random_state=_SEED, n_jobs=1
    )
    with threadpool_limits(1):
        return np.asarray(layout.fit_transform(vectors), dtype=np.float64)


def _with_room(
    pixels: NDArray[np.float64], places: NDArray[np.float64], names: Sequence[str]
) -> Iterator[tuple[tuple[float, float], str]]:
    """Yield places and names, in their order, but for names that would run into one before."""
    taken: list[tuple[float, float, float]] = []
    for (x, y), place, name in zip(pixels.tolist(), places.tolist(), names, strict=False):
        end = x + _LETTER_WIDTH * len(name)
        if all(abs(y - other) > _LINE_HEIGHT or end < left or x > right for left, right, other in taken):
            taken.append((x, end, y))
            yield (place[0], place[1]), name


def _draw(name: str, places: NDArray[np.float64], terms: Sequence[str], names: Sequence[str]) -> str:
    figure, axes = plt.subplots(figsize=(7.2, 6.2), dpi=110, layout="constrained")
    axes.set_title(name, loc="left", fontsize=12, fontweight="bold", color=_INK)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    frequent = [term for term, _ in Counter(term for term in terms if term != _OTHER).most_common(len(_COLOURS))]
    colours = dict(zip(frequent, _COLOURS, strict=False))
    for term in (_OTHER, *reversed(frequent)):
        rows = [row for row, own in enumerate(terms) if (own if own in colours else _OTHER) == term]
        colour = colours.get(term, _OTHER_COLOUR)
        axes.scatter(places[rows, 0], places[rows, 1], s=18, color=colour, label=term, linewidths=0, alpha=0.85)
    figure.canvas.draw()
    for place, title in _with_room(axes.transData.transform(places[: len(names)]), places, names):
        axes.annotate(title, place, xytext=(4, -2), textcoords="offset points", fontsize=7, color=_INK)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    svg = io.StringIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    plt.close(figure)
    return svg.getvalue()[svg.getvalue().index("<svg") :]
