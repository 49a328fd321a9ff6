"""The report of a snapshot, for a person: one HTML file that needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feature_repo.contracts.intervals import format_cutoff
from pipelines.embeddings.neighbours import vector_cosines
from pipelines.embeddings.projection import projection_svg
from pipelines.reports.page import publish, render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import pyarrow as pa

    from feature_repo.contracts.places import Namespace
    from pipelines.embeddings.kinds import Fit
    from pipelines.embeddings.likes import LikeSummary
    from pipelines.embeddings.neighbours import Neighbours

_TEMPLATE = "embeddings.html.jinja"
KIND = "embeddings"
"""The folder of these reports, below the namespace's."""
BASELINE = "ItemCF"
SHOWN_TITLES = 15
SHOWN_NEIGHBOURS = 8
PROJECTED_ITEMS = 600


@dataclass(frozen=True, slots=True)
class Description:
    """What a person needs to know of an item."""

    name: str
    terms: tuple[str, ...]
    """Of the first multi-valued attribute, or else of the first categorical one; empty where the data set has none."""


def write_report(  # noqa: PLR0917 - what the page shows, and of when
    place: Namespace,
    cutoff: datetime,
    liked: LikeSummary,
    fits: Sequence[Fit],
    baseline: Neighbours,
    items: Mapping[str, Description],
) -> str:
    """Write the page of a cutoff; return its path below the namespace's reports. The same content is the same report.

    Args:
        place: The namespace.
        cutoff: Exclusive end of what the vectors know.
        liked: What they were fitted on; its items are those that are shown.
        fits: The kinds, in the order of their columns.
        baseline: ItemCF's neighbours of the first SHOWN_TITLES items.
        items: Item id → its description; an item that is not among them is shown by its id.
    """
    titles = [item for item, _ in liked.most[:SHOWN_TITLES]]
    near = {BASELINE: baseline} | {one.kind.name: vector_cosines(one.items, titles, SHOWN_NEIGHBOURS) for one in fits}
    report = {
        "namespace": place.name,
        "cutoff": format_cutoff(cutoff),
        "likes": liked.likes,
        "users": liked.users,
        "liked_items": liked.items,
        "k": SHOWN_NEIGHBOURS,
        "projected": len(liked.most),
        "has_terms": any(items[item].terms for item, _ in liked.most if item in items),
        "methods": list(near),
        "kinds": [_kind(one, liked, _share_of_shared(near[one.kind.name], baseline)) for one in fits],
        "titles": [_title(item, users, near, items) for item, users in liked.most[:SHOWN_TITLES]],
    }
    plots = [projection_svg(one.kind.name, one.items, liked.most, items) for one in fits]
    return publish(place, KIND, cutoff, render(_TEMPLATE, report, plots), report)


def describe(catalogue: pa.Table, name: str, terms: str | None) -> dict[str, Description]:
    """Return item id → description, from columns of the catalogue: one holds a name, one a term or a list of them."""
    names = catalogue.column(name).to_pylist()
    said = [None] * len(names) if terms is None else catalogue.column(terms).to_pylist()
    lists = ((each,) if isinstance(each, str) else tuple(each or ()) for each in said)
    ids = catalogue.column("item_id").to_pylist()
    return {item: Description(*about) for item, *about in zip(ids, names, lists, strict=True)}


def _kind(one: Fit, liked: LikeSummary, shared: float) -> dict[str, Any]:
    return {
        "name": one.kind.name,
        "vectors": one.items.num_rows,
        "users": one.users.num_rows,
        "covered": one.covered / liked.likes if liked.likes else 0.0,
        "shared": shared,
        "parameters": {name: value for name, value in one.kind.parameters.items() if name != "revision"},
    }


def _share_of_shared(neighbours: Neighbours, baseline: Neighbours) -> float:
    """Return the share of the neighbours shown that the baseline has, too."""
    shared = [other in {same for same, _ in baseline[item]} for item, near in neighbours.items() for other, _ in near]
    return sum(shared) / len(shared) if shared else 0.0


def _title(item: str, users: int, near: Mapping[str, Neighbours], items: Mapping[str, Description]) -> dict[str, Any]:
    among = {other for other, _ in near[BASELINE][item]}
    sides = [
        {
            "method": method,
            "neighbours": [
                {
                    "name": _name(other, items),
                    "cosine": cosine,
                    "shared": method != BASELINE and other in among,
                }
                for other, cosine in neighbours[item]
            ],
        }
        for method, neighbours in near.items()
    ]
    terms = items[item].terms if item in items else ()
    return {"name": _name(item, items), "users": users, "terms": terms, "sides": sides}


def _name(item: str, items: Mapping[str, Description]) -> str:
    """Return an item's title, or its id where nobody says what it is."""
    return items[item].name if item in items and items[item].name else item
