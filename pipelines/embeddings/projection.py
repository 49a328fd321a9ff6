"""Vectors laid flat, for the eye: t-SNE, coloured by each item's first term, or by how many users liked it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.textpath import TextPath

from feature_repo.contracts.embeddings import VECTOR
from pipelines.embeddings.vectors import matrix
from pipelines.reports.svg import INK, as_svg, plt, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from pipelines.embeddings.report import Description


_COLOURS = ("#0f6cbd", "#d9480f", "#2b8a3e", "#7048a8", "#c2255c", "#22b8cf", "#e0a800", "#5c3d2e")
_OTHER_COLOUR = "#c4cad1"
_OTHER = "other"
_PERPLEXITY, _ITERATIONS = 30.0, 500
_SEED = 7
_NAMED = 60
"""So many items, those that most people liked, get their names beside their points, as far as there is room."""
_SIZE, _DPI, _POINTS_PER_INCH = 7, 110, 72
_LINE_HEIGHT, _GAP = 11.0, 8.0
"""Of names, in pixels."""


def projection_svg(
    name: str, snapshot: pa.Table, items: Sequence[tuple[str, int]], descriptions: Mapping[str, Description]
) -> str:
    """Return the picture of a snapshot as an <svg> element; `items` come with their users, and the first are named."""
    places = {item: place for place, item in enumerate(snapshot.column("item_id").to_pylist())}
    shown = {item: users for item, users in items if item in places}
    vectors = matrix(snapshot.column(VECTOR.name))[[places[item] for item in shown]]
    terms = [next(iter(descriptions[item].terms), _OTHER) if item in descriptions else _OTHER for item in shown]
    names = [descriptions[item].name if item in descriptions else item for item in list(shown)[:_NAMED]]
    return _draw(name, flat(vectors), terms, list(shown.values()), [shortened(each) for each in names])


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
    pixels: NDArray[np.float64], places: NDArray[np.float64], names: Sequence[str], border: float
) -> Iterator[tuple[tuple[float, float], str]]:
    """Yield places and names, in their order, but for names that would run into one before, or over the border."""
    taken: list[tuple[float, float, float]] = []
    for (x, y), place, name in zip(pixels.tolist(), places.tolist(), names, strict=False):
        end = x + _width(name) + _GAP
        if end < border and all(
            abs(y - other) > _LINE_HEIGHT or end < left or x > right for left, right, other in taken
        ):
            taken.append((x, end, y))
            yield (place[0], place[1]), name


def _width(name: str) -> float:
    path = TextPath((0, 0), name, size=_SIZE)
    return float(path.get_extents().width) * _DPI / _POINTS_PER_INCH if len(path.vertices) else 0.0


def _draw(
    name: str, places: NDArray[np.float64], terms: Sequence[str], users: Sequence[int], names: Sequence[str]
) -> str:
    figure, axes = plt.subplots(figsize=(7.2, 6.2), dpi=_DPI, layout="constrained")
    axes.set_title(name, loc="left", fontsize=12, fontweight="bold", color=INK)
    axes.margins(x=0.1)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    if not users or any(term != _OTHER for term in terms):
        _dots_by_term(axes, places, terms)
    else:
        _dots_by_users(figure, axes, places, users)
    figure.canvas.draw()
    figure.set_layout_engine("none")  # names would move what their room was looked for in
    pixels = axes.transData.transform(places[: len(names)])
    for place, title in _with_room(pixels, places, names, axes.bbox.x1):
        axes.annotate(title, place, xytext=(4, -2), textcoords="offset points", fontsize=_SIZE, color=INK)
    return as_svg(figure)


def _dots_by_term(axes: Axes, places: NDArray[np.float64], terms: Sequence[str]) -> None:
    """Give the most frequent terms a colour each."""
    frequent = [term for term, _ in Counter(term for term in terms if term != _OTHER).most_common(len(_COLOURS))]
    colours = dict(zip(frequent, _COLOURS, strict=False))
    for term in (_OTHER, *reversed(frequent)):
        rows = [row for row, own in enumerate(terms) if (own if own in colours else _OTHER) == term]
        if not rows:
            continue  # the legend names no colour that is not there
        colour = colours.get(term, _OTHER_COLOUR)
        axes.scatter(places[rows, 0], places[rows, 1], s=18, color=colour, label=term, linewidths=0, alpha=0.85)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)


def _dots_by_users(figure: Figure, axes: Axes, places: NDArray[np.float64], users: Sequence[int]) -> None:
    """Colour items without terms by how many users liked them."""
    dots = axes.scatter(
        places[:, 0], places[:, 1], s=18, c=users, cmap="Blues", norm=LogNorm(min(users) / 2), linewidths=0
    )
    bar = figure.colorbar(dots, ax=axes, shrink=0.4, anchor=(0.0, 1.0), label="users who liked it")
    bar.outline.set_visible(False)
    ticks = sorted({min(users), round((min(users) * max(users)) ** 0.5), max(users)})
    bar.set_ticks(ticks, labels=[f"{tick:,}" for tick in ticks], minor=False)
    bar.minorticks_off()
