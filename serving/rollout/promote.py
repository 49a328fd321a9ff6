"""Makes tested versions of parts what users get; whatever else is in force stays."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from feature_repo.contracts.manifests import PartKind
from serving.rollout import journal
from serving.rollout.admission import admitted
from serving.rollout.composition import composed
from serving.rollout.file_parts import parts_of_run, published_part
from serving.rollout.online_views import online_snapshot, require_views
from serving.rollout.registry import APPROVAL_TAG
from serving.rollout.release_records import part_of
from serving.rollout.serving_model import served_parts
from serving.rollout.switching import at_work, result, switch
from serving.rollout.verdict import require_comparison, unmet_champion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feature_repo.contracts.manifests import Part
    from serving.rollout.registry import RegisteredVersion
    from serving.rollout.serving_model import ServingModel


def promote(
    model: ServingModel,
    version: int,
    key: str = "",
    despite_champion: str = "",
    others: Mapping[str, int] | None = None,
) -> dict[str, object]:
    """Make `version` the champion: for the server, for the recommender, and in the registry.

    The files that were fitted with a ranker come into force with it: quotas, re-ranking.

    A promotion that was made for `key` is not made again, whatever has happened since: a late retry does not undo a
    rollback.

    Args:
        model: What is promoted.
        version: Its registered version; of a part that is a file, its published one.
        key: Names the caller's one wish; empty if it has no name.
        despite_champion: Why it may replace a champion that the gates never compared it with; empty if it may not.
        others: Parts that come into force with it, in the same switch, and their versions.

    Raises:
        RejectedError: The gates did not let it through, or compared it with another champion.
        AbsentViewsError: It reads feature views that are not online.
        NumberTakenError: Another model serves under its number.
        RolloutError: The release would have no ranker.
        UnknownVersionError: The registry, or a part that is a file, has no such version.
        CallError: The server refused; the old version serves.
    """
    with at_work(model):
        made = journal.done_with(model, journal.Kind.PROMOTION, key)
        if made is not None:
            return result(model, made)
        current = model.current_release()
        parts: dict[str, Part] = {}
        fitted: dict[str, Part] = {}
        reasons: list[str] = []
        for name, number in {model.part: version, **(others or {})}.items():
            part, reason, own = _promotable(model.of(name), number, despite_champion.strip())
            parts[name] = part
            fitted |= own
            reasons.append(reason)
        parts = fitted | parts
        release = composed(model, parts, "; ".join(reasons))
        if current is not None and current.number == release.number:  # admitted: it is that very release
            release = dataclasses.replace(release, why=model.promoted_why(current))  # as it said first
        elif served_parts(parts):
            require_views(model, release, online_snapshot(model), "train and promote a model on what is online")
        return switch(model, journal.Kind.PROMOTION, release, key)


def _promotable(model: ServingModel, version: int, despite_champion: str) -> tuple[Part, str, dict[str, Part]]:
    """Return a part that may come into force, why, and the files that were fitted with it."""
    if (part := published_part(model, version)) is not None:
        return part, f"{model.part} {version} was published", {}
    registered = admitted(model, version)
    part, reason = part_of(model, registered)
    if (current := model.current()) is not None and registered.is_of(current):
        return part, reason, {}  # what is in force was compared when it came, and its files may be others by now
    why = _why(model, registered, reason, despite_champion)  # what is refused publishes nothing
    return part, why, parts_of_run(model, registered) if part.kind is PartKind.RANKER else {}


def _why(model: ServingModel, registered: RegisteredVersion, reason: str, despite_champion: str) -> str:
    approval = registered.tags.get(APPROVAL_TAG)
    gates = f"approved by {approval}; the gates' reason: {reason}" if approval else reason
    if not despite_champion:
        require_comparison(model, registered)
    elif unmet := unmet_champion(model, registered):
        return f"promoted by hand although {unmet}: {despite_champion}; the gates' reason: {gates}"
    return gates
