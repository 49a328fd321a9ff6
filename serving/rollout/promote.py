"""Makes a tested version the one that users get."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from serving.rollout import journal
from serving.rollout.admission import admitted
from serving.rollout.online_views import online_snapshot, require_views
from serving.rollout.registry import APPROVAL_TAG
from serving.rollout.release_records import previous_of, release_of
from serving.rollout.switching import at_work, result, switch
from serving.rollout.verdict import require_comparison, unmet_champion

if TYPE_CHECKING:
    from feature_repo.contracts.manifests import Release
    from serving.rollout.registry import RegisteredVersion
    from serving.rollout.serving_model import ServingModel


def promote(model: ServingModel, version: int, key: str = "", despite_champion: str = "") -> dict[str, object]:
    """Make `version` the champion: for the server, for the recommender, and in the registry.

    A promotion that was made for `key` is not made again, whatever has happened since: a late retry does not undo a
    rollback.

    Args:
        model: What is promoted.
        version: Its registered version.
        key: Names the caller's one wish; empty if it has no name.
        despite_champion: Why it may replace a champion that the gates never compared it with; empty if it may not.

    Raises:
        RejectedError: The gates did not let it through, or compared it with another champion.
        AbsentViewsError: It reads feature views that are not online.
        NumberTakenError: Another model serves under its number.
        CallError: The server refused; the old version serves.
    """
    with at_work(model):
        made = journal.done_with(model, journal.Kind.PROMOTION, key)
        if made is not None:
            return result(model, made)
        registered = admitted(model, version)
        current = model.current_release()
        release = release_of(model, registered, previous_of(current, version))
        if current is not None and current.version == release.version:  # admitted: it is that very model
            release = dataclasses.replace(release, verdict=model.promoted_why(release))  # as it said first
        else:
            release = dataclasses.replace(release, verdict=_why(model, registered, release, despite_champion.strip()))
            require_views(model, release, online_snapshot(model), "train and promote a model on what is online")
        return switch(model, journal.Kind.PROMOTION, release, key)


def _why(model: ServingModel, registered: RegisteredVersion, release: Release, despite_champion: str) -> str:
    approval = registered.tags.get(APPROVAL_TAG)
    gates = f"approved by {approval}; the gates' reason: {release.verdict}" if approval else release.verdict
    if not despite_champion:
        require_comparison(model, registered)
    elif unmet := unmet_champion(model, registered):
        return f"promoted by hand although {unmet}: {despite_champion}; the gates' reason: {gates}"
    return gates
