"""Re-ranking: how much of a personal order is mixed into a model's, fitted by the lists at the validation origins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from feature_repo import list_metrics
from feature_repo.contracts.channels import PERSONAL_CHANNELS
from feature_repo.contracts.list_policy import Reranking
from feature_repo.contracts.questions import SimpleList
from feature_repo.list_metrics import DECIDING, LIST_METRICS
from serving.lists.quotas import LEAST_USERS
from serving.lists.simple import best_of, judged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from serving.lists.answering import Scored
    from serving.lists.questions import OriginQuestions
    from serving.lists.simple import Chosen

SHARES = tuple(round(0.05 * step, 2) for step in range(21))
_METRIC, _K = LIST_METRICS[DECIDING]


@dataclass(frozen=True, slots=True)
class Tried:
    """A share, and the lists that it gives."""

    share: float
    ndcg_at_10: float
    overlap: float


@dataclass(frozen=True, slots=True)
class Lists:
    """What is shown at one origin, and what that is judged by."""

    questions: OriginQuestions
    scored: Scored

    def tried(self, reranking: Reranking) -> tuple[NDArray[np.float64], float]:
        """Return `[judged]`, the deciding metric, and the overlap of two judged users' lists."""
        chosen, items = judged(self.questions), len(self.questions.item_ids)
        shown = self.scored.reordered(reranking)[:, :_K]
        values = _METRIC(self.questions.hits(shown), self.questions.answer_counts, _K)[chosen]
        return values, list_metrics.overlap(shown[chosen], _K, items) or 0.0


def fit_reranking(shown: Sequence[Lists], limit: float, keep: float) -> tuple[Reranking, list[Tried]]:
    """Return what is mixed into a model's order, and all that was tried of the channel.

    The channel is the personal one whose own order is the best. Shares that keep enough of the highest NDCG@10 compete:
    of those within the limit of overlap the one with the highest NDCG@10 wins; if none is, the one with the least
    overlap.

    Args:
        shown: A model's lists at the validation origins.
        limit: Of the overlap of two users' tens.
        keep: Share of the highest NDCG@10 that has to stay.
    """
    if sum(int(judged(each.questions).sum()) for each in shown) < LEAST_USERS:
        return Reranking(), []
    found = {name for each in shown for own in each.scored.ranked if own is not None for name in own.answers}
    alone = {name: _tried(shown, name, 1.0).ndcg_at_10 for name in PERSONAL_CHANNELS if name in found}
    if not alone:
        return Reranking(), []
    channel = max(alone, key=lambda name: alone[name])
    tried = [_tried(shown, channel, share) for share in SHARES]
    best = max(each.ndcg_at_10 for each in tried)
    if not best:  # nobody is shown what they like, whatever is mixed in
        return Reranking(), tried
    good = [each for each in tried if each.ndcg_at_10 >= keep * best]
    within = [each for each in good if each.overlap <= limit]
    chosen = max(within, key=lambda each: each.ndcg_at_10) if within else min(good, key=lambda each: each.overlap)
    return Reranking(channel, chosen.share) if chosen.share else Reranking(), tried


def _tried(shown: Sequence[Lists], channel: str, share: float) -> Tried:
    figures = [each.tried(Reranking(channel, share)) for each in shown]
    values, overlaps = zip(*figures, strict=True)
    return Tried(share, float(np.concatenate(values).mean()), float(np.mean(overlaps)))


def overlap_limit(origins: Sequence[OriginQuestions], chosen: Sequence[Chosen]) -> float:
    """Return how much two users' tens may have in common: half of what the most liked items' lists have.

    All of it where the best simple list is the same for everybody: then what is liked is much the same.
    """
    overlaps = [
        list_metrics.overlap(_most_liked(origin)[judged(origin)], _K, len(origin.item_ids)) or 0.0 for origin in origins
    ]
    share = 0.5 if SimpleList(best_of(chosen).method).is_personal else 1.0
    return share * float(np.mean(overlaps))


def _most_liked(origin: OriginQuestions) -> NDArray[np.intp]:
    return next(lists for (method, _), lists in origin.simple_lists().items() if method == SimpleList.MOST_LIKED)
