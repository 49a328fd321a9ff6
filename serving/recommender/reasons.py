"""A sentence for a person about why an item is shown; none is better than one that nobody would believe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from feature_repo.contracts.channels import CIRCLE, LIKED, POPULAR
from serving.recommender.recall.fitted import NO_LIKES, strongest_like

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from serving.recommender.recall.fitted import Likes
    from serving.recommender.snapshot import Snapshot

POPULAR_REASON = "popular with everyone"
CIRCLE_REASON = "liked by somebody you follow"
POPULAR_LATELY_REASON = "popular these days"


def liked_reason(title: str) -> str:
    """Say that the item is near one that the user liked."""
    return f"because you liked {title}"


def taste_reason(term: str) -> str:
    """Say that the item is popular, and has something that the user likes often, such as a genre."""
    return f"popular, and you often like {term}"


def similar_reason(title: str) -> str:
    """Say that the item is near the one that was asked about."""
    return f"liked by people who liked {title}"


@dataclass(frozen=True, slots=True)
class Told:
    """What is known of the user that reasons can be made of."""

    likes: Likes = NO_LIKES
    nearest: Mapping[int, int] = field(default_factory=dict)
    """Position of an item → position of the liked item whose vector it is near."""
    taste: Sequence[tuple[str, str]] = ()
    """(attribute, term), what the user likes, most liked first."""

    def reasons(
        self, snapshot: Snapshot, positions: NDArray[np.intp], found_by: Sequence[Sequence[str]]
    ) -> list[str | None]:
        """Return the most personal reason that there is for each item; None where there is none.

        Args:
            snapshot: What is online.
            positions: `[items]`, in the catalogue.
            found_by: `[items]`, the channels that found each.
        """
        liked = self._liked(snapshot, positions, found_by)
        return [
            liked_reason(snapshot.catalogue.titles[liked[position]])
            if position in liked
            else self._of_others(snapshot, position, channels)
            for position, channels in zip(positions.tolist(), found_by, strict=True)
        ]

    def _liked(
        self, snapshot: Snapshot, positions: NDArray[np.intp], found_by: Sequence[Sequence[str]]
    ) -> dict[int, int]:
        """Return item → liked item, positions both: what adds most to its score in the first channel that found it.

        Else the one that is near it.
        """
        liked: dict[int, int] = {}
        items = positions.tolist()
        for name, table in snapshot.tables.items():
            if table.is_personal and len(liked) < len(positions):
                found_here = [
                    name in channels and item not in liked for item, channels in zip(items, found_by, strict=True)
                ]
                own = positions[found_here]
                strongest = strongest_like(table, self.likes, own).tolist()
                liked |= {item: like for item, like in zip(own.tolist(), strongest, strict=True) if like >= 0}
        return {item: self.nearest[item] for item in items if item in self.nearest} | liked

    def _of_others(self, snapshot: Snapshot, position: int, channels: Sequence[str]) -> str | None:
        if CIRCLE in channels:
            return CIRCLE_REASON
        is_popular = not {POPULAR, LIKED}.isdisjoint(channels)
        lately = any(name in snapshot.tables and not snapshot.tables[name].is_personal for name in channels)
        if not is_popular and not lately:
            return None
        terms = snapshot.catalogue.terms
        shared = (taste_reason(term) for attribute, term in self.taste if term in terms[attribute][position])
        return next(shared, POPULAR_REASON if is_popular else POPULAR_LATELY_REASON)
