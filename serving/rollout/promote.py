"""Makes a tested version the one that users get."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.rollout import journal
from serving.rollout.admission import admitted
from serving.rollout.release_records import previous_of, release_of
from serving.rollout.switching import at_work, result, switch

if TYPE_CHECKING:
    from serving.rollout.serving_model import ServingModel


def promote(model: ServingModel, version: int, key: str = "") -> dict[str, object]:
    """Make `version` the champion: for the server, for the recommender, and in the registry.

    A promotion that was made for `key` is not made again, whatever has happened since: a late retry does not undo a
    rollback.

    Raises:
        RejectedError: The gates did not let it through.
        NumberTakenError: Another model serves under its number.
        CallError: The server refused; the old version serves.
    """
    with at_work(model):
        made = journal.done_with(model, journal.Kind.PROMOTION, key)
        if made is not None:
            return result(model, made)
        registered = admitted(model, version)
        release = release_of(model, registered, previous_of(model.current_release(), version))
        return switch(model, journal.Kind.PROMOTION, release, key)
