"""What a new release is made of: the parts of the one in force, with some in place of their own."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from feature_repo.contracts.manifests import Release
from feature_repo.contracts.signatures import RANKING_MODEL
from serving.rollout.errors import RolloutError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feature_repo.contracts.manifests import Part
    from serving.rollout.serving_model import ServingModel


def composed(model: ServingModel, parts: Mapping[str, Part], why: str) -> Release:
    """Return the release in force with `parts` in place of its own: itself, told `why`, if it has these already.

    Raises:
        RolloutError: It would have no ranker.
    """
    current = model.current_release()
    if current is None:
        if RANKING_MODEL not in parts:
            msg = (
                f"namespace {model.namespace}: expected a release in force, which {sorted(parts)} could join, found "
                "none; promote a ranker first, or with it"
            )
            raise RolloutError(msg)
        return Release(model.namespace, _next_number(model), {**parts}, 0, {}, why)
    if all(name in current.parts and _is_same(current.parts[name], part) for name, part in parts.items()):
        return dataclasses.replace(current, why=why)
    whole = {**current.parts, **parts}
    return Release(model.namespace, _next_number(model), whole, current.number, current.parts, why)


def _is_same(one: Part, other: Part) -> bool:
    return (one.version, one.run_id, one.checksum) == (other.version, other.run_id, other.checksum)


def _next_number(model: ServingModel) -> int:
    current = model.current_release()
    taken = (current.number, current.previous) if current is not None else ()
    return max((*model.release_numbers(), *taken), default=0) + 1
