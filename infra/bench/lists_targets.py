"""How good lists have to be, beside how good they are: ratios to lists and channels that need no ranker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.questions import SimpleList
from feature_repo.list_metrics import DECIDING
from infra.bench.results import Figure
from serving.lists.report import CANDIDATE

if TYPE_CHECKING:
    from infra.bench.lists_cells import Measured

_RATIO = 1.05
"""Of the served lists to the best simple list, and of the candidates to as many of EASE's own."""
_EASE_CHANNEL = "ease"
_DEPTH = "recall_at_200"
_PERSONAL = {each for each in SimpleList if each.is_personal}


def targets(measured: Measured) -> list[Figure]:
    """Return what lists should reach on a data set, all cells together; a value is None where it was not measured."""
    best = measured.best_simple
    served, simple = (measured.mean(name, DECIDING) for name in (CANDIDATE, best))
    overlap, liked_overlap, best_overlap = (
        measured.of_lists(name, "overlap") for name in (CANDIDATE, SimpleList.MOST_LIKED, best)
    )
    allowed = _half(liked_overlap) if best in _PERSONAL else best_overlap
    recalled = _ratio(measured.of_recall(_DEPTH), measured.of_channel(_EASE_CHANNEL, _DEPTH))
    half = _half(measured.of_lists(SimpleList.EASE, "coverage"))
    return [
        Figure(f"NDCG@10 of the served list over that of {best}", _ratio(served, simple), "ratio", "higher", _RATIO),
        Figure("Recall@200 of the candidates over that of EASE's first 200", recalled, "ratio", "higher", _RATIO),
        Figure("overlap of two users' tens", overlap, "ratio", "lower", allowed),
        Figure("coverage", measured.of_lists(CANDIDATE, "coverage"), "ratio", "higher", half),
    ]


def _ratio(value: float | None, other: float | None) -> float | None:
    return None if value is None or not other else value / other


def _half(value: float | None) -> float | None:
    return None if value is None else value / 2
