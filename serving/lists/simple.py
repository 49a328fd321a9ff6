"""Which variant of each simple list counts: the one with the highest deciding metric on the validation origins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from feature_repo import list_metrics
from feature_repo.contracts.questions import UNTUNED, Role, SimpleList
from feature_repo.list_metrics import DECIDING, LIST_METRICS, best_variant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from serving.lists.questions import OriginQuestions


@dataclass(frozen=True, slots=True)
class Chosen:
    """A variant of a simple list, and how it did where it was chosen."""

    method: str
    variant: str
    tried: int
    """How many variants there were."""
    validation: float | None
    """The mean of the deciding metric over the judged users of the validation origins; None where there are none."""

    @property
    def name(self) -> str:
        """The list's name in tables."""
        return self.method


def choose(origins: Sequence[OriginQuestions]) -> list[Chosen]:
    """Return one variant of every simple list, in the order of `SimpleList`."""
    values: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
    for origin in origins:
        if origin.role is Role.VALIDATION and len(origin.users):
            asked = judged(origin)
            for variant, figures in deciding(origin).items():
                values.setdefault(variant, []).append(figures[asked])
    means = {variant: float(np.concatenate(figures).mean()) for variant, figures in values.items()}
    chosen = []
    for method in SimpleList:
        own = {variant: mean for (name, variant), mean in means.items() if name == method.value}
        best = best_variant(own) if own else UNTUNED.get(method, "")
        chosen.append(Chosen(method.value, best, len(own) or 1, own.get(best)))
    return chosen


def judged(origin: OriginQuestions) -> NDArray[np.bool_]:
    """Return `[users]`, whom verdicts are about: those of long history, or everybody where nobody has one."""
    return list_metrics.judged(origin.history)


def deciding(origin: OriginQuestions) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Return (method, variant) → the deciding metric of every user."""
    metric, k = LIST_METRICS[DECIDING]
    counts = origin.answer_counts
    return {variant: metric(origin.hits(lists[:, :k]), counts, k) for variant, lists in origin.simple_lists().items()}


def best_of(chosen: Sequence[Chosen]) -> Chosen:
    """Return the simple list that did best on validation; the most liked of all time where nothing was validated."""
    return max(chosen, key=lambda one: -1.0 if one.validation is None else one.validation)
