"""Goes back to a version that was in force before, without asking the registry until users are served by it."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

from feature_repo.contracts.publishing import CorruptRecordError
from serving.rollout import journal
from serving.rollout.errors import RolloutError
from serving.rollout.online_views import online_snapshot, require_views
from serving.rollout.switching import at_work, result, switch
from serving.rollout.version_folders import on_disk

if TYPE_CHECKING:
    from feature_repo.contracts.manifests import Release
    from serving.rollout.serving_model import ServingModel

log = logging.getLogger(__name__)


def rollback(model: ServingModel, to: int | None = None, reason: str = "", key: str = "") -> dict[str, object]:
    """Go back to version `to`, or to the one before the version in force.

    A rollback that was made for `key` is not made again, so a retry changes nothing. Without a key and without `to`
    each call goes to the version before: twice, it is a switch to and fro.

    Raises:
        RolloutError: There is no release, none before it, or `to` is no version that could come back.
        AbsentViewsError: It reads feature views that are not online.
        RegistryUnavailableError: The old version serves; the aliases follow with the next command.
    """
    with at_work(model):
        made = journal.done_with(model, journal.Kind.ROLLBACK, key)
        if made is not None:
            return result(model, made)
        current = model.current_release()
        if current is None:
            msg = f"{model.name}: expected a release in force, found none; promote a version first"
            raise RolloutError(msg)
        target = _target(model, current, to)
        if current.version == str(target):
            unchanged = {"version": current.version, "previous_version": current.previous_version}
            return {"model": model.name, **unchanged}
        why = f"rolled back from version {current.version}: {reason or 'no reason was given'}"
        promoted = model.promoted_release(target)
        if promoted is None:
            raise _impossible(model, target)
        _require_views(model, promoted)
        release = dataclasses.replace(promoted, previous_version=current.version, verdict=why)
        return switch(model, journal.Kind.ROLLBACK, release, key)


def _target(model: ServingModel, current: Release, to: int | None) -> int:
    possible = _possible(model)
    if to is None and not current.previous_version:
        msg = (
            f"{model.name}: expected a release with one before it, found version {current.version}, the first; name "
            f"another with --to, of {possible}"
        )
        raise RolloutError(msg)
    target = to if to is not None else int(current.previous_version)
    if target not in possible and str(target) != current.version:
        raise _impossible(model, target)
    return target


def _require_views(model: ServingModel, release: Release) -> None:
    """Refuse a version with which nothing would be ranked, and name those with which something would.

    Raises:
        AbsentViewsError: It is one.
    """
    try:
        online = online_snapshot(model)
    except CorruptRecordError as error:
        # The recommender answers from what it has in memory; a rollback is urgent.
        log.warning("%s: going back all the same", error)
        return
    readable = [model.readable_release(version) for version in _possible(model)]
    fit = [int(one.version) for one in readable if one is not None and not (online and one.absent_views(online))]
    require_views(model, release, online, f"name another with --to: the views of {fit} are online")


def _possible(model: ServingModel) -> list[int]:
    return [version for version in on_disk(model) if model.release_path(version).is_file()]


def _impossible(model: ServingModel, target: int) -> RolloutError:
    return RolloutError(
        f"{model.name}: expected a version that was promoted once and lies on disk still, one of {_possible(model)}, "
        f"received {target}; roll another one back, or out: `python -m serving.rollout publish`; "
        f"{model.command('status')} says what became of the one before"
    )
