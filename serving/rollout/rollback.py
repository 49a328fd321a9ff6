"""Goes back to a release that was in force before, without asking the registry until users are served by it."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

from feature_repo.contracts.manifests import Release
from feature_repo.contracts.publishing import CorruptRecordError
from serving.rollout import journal
from serving.rollout.errors import RolloutError
from serving.rollout.file_parts import file_faults, file_versions
from serving.rollout.online_views import online_snapshot, require_views
from serving.rollout.serving_model import served_parts
from serving.rollout.switching import at_work, result, switch

if TYPE_CHECKING:
    from serving.rollout.serving_model import ServingModel

log = logging.getLogger(__name__)


def rollback(model: ServingModel, to: int | None = None, reason: str = "", key: str = "") -> dict[str, object]:
    """Go back to the release before the one in force, or to the latest that had version `to` of the part.

    Every part is what it was in that release, whichever of them differ. A rollback that was made for `key` is not made
    again, so a retry changes nothing. Without a key and without `to` each call goes to the release before: twice, it is
    a switch to and fro.

    Raises:
        RolloutError: There is no release, none before it, or `to` is no version that could come back.
        AbsentViewsError: It reads feature views that are not online.
        RegistryUnavailableError: The old release serves; the aliases follow with the next command.
    """
    with at_work(model):
        made = journal.done_with(model, journal.Kind.ROLLBACK, key)
        if made is not None:
            return result(model, made)
        current = model.current_release()
        if current is None:
            msg = f"{model.name}: expected a release in force, found none; promote a version first"
            raise RolloutError(msg)
        part = model.current()
        if to is not None and part is not None and part.version == str(to):
            before = model.before()
            unchanged = {"version": part.version, "previous_version": before.version if before is not None else ""}
            return {"model": model.name, **unchanged}
        promoted = _before(model, current) if to is None else _with_version(model, current, to)
        _require_views(model, current, promoted)
        left = f"version {part.version}" if part is not None else f"release {current.number}"
        release = dataclasses.replace(
            promoted,
            previous=current.number,
            previous_parts=current.parts,
            why=f"rolled back from {left}: {reason or 'no reason was given'}",
        )
        return switch(model, journal.Kind.ROLLBACK, release, key)


def _before(model: ServingModel, current: Release) -> Release:
    """Return the release before; the pointer itself tells of it."""
    if not current.previous:
        part = model.current()
        msg = (
            f"{model.name}: expected a release with one before it, found version {part.version if part else 'none'}, "
            f"the first; name another with --to, of {_possible(model, current)}"
        )
        raise RolloutError(msg)
    release = Release(model.namespace, current.previous, current.previous_parts, 0, {}, "")
    if not release.parts or not _is_here(model, release):
        before = model.before()
        target = before.version if before is not None else f"of release {current.previous}"
        raise _impossible(model, current, target, [release])
    return release


def _with_version(model: ServingModel, current: Release, to: int) -> Release:
    wanted = [
        release
        for release in _releases(model, current)
        if model.part in release.parts and release.parts[model.part].version == str(to)
    ]
    for release in wanted:
        if _is_here(model, release):
            return release
    if model.version_path(to).is_dir() or to in file_versions(model):
        # Perhaps a record that cannot be read told of it: its error has the remedy.
        for number in model.release_numbers():
            model.promoted_release(number)
    raise _impossible(model, current, str(to), wanted)


def _releases(model: ServingModel, current: Release) -> list[Release]:
    """Return what can be read of the releases that were promoted, newest first."""
    found = {number: model.readable_release(number) for number in model.release_numbers()}
    if current.previous and current.previous_parts:
        found[current.previous] = Release(model.namespace, current.previous, current.previous_parts, 0, {}, "")
    return [release for _, release in sorted(found.items(), reverse=True) if release is not None]


def _is_here(model: ServingModel, release: Release) -> bool:
    """Tell whether all that a release is made of lies on disk still."""
    models = all(model.of(part.name).version_path(int(part.version)).is_dir() for part in served_parts(release.parts))
    return models and not file_faults(model, release)


def _require_views(model: ServingModel, current: Release, release: Release) -> None:
    """Refuse a release with which nothing would be ranked, and name the versions with which something would.

    Raises:
        AbsentViewsError: It is one.
    """
    try:
        online = online_snapshot(model)
    except CorruptRecordError as error:
        # The recommender answers from what it has in memory; a rollback is urgent.
        log.warning("%s: going back all the same", error)
        return
    if online is None or not release.absent_views(online):
        return  # no need to read what all the others read
    fit = [one for one in _releases(model, current) if not one.absent_views(online)]
    versions = _versions(model, [one for one in fit if _is_here(model, one)])
    require_views(model, release, online, f"name another with --to: the views of {versions} are online")


def _versions(model: ServingModel, releases: list[Release]) -> list[int]:
    """Return the part's versions in some releases, newest first."""
    found = {int(release.parts[model.part].version) for release in releases if model.part in release.parts}
    return sorted(found, reverse=True)


def _possible(model: ServingModel, current: Release) -> list[int]:
    return _versions(model, [release for release in _releases(model, current) if _is_here(model, release)])


def _impossible(model: ServingModel, current: Release, target: str, wanted: list[Release]) -> RolloutError:
    return RolloutError(
        f"{model.name}: expected a version that was promoted once and lies on disk still, one of "
        f"{_possible(model, current)}, received {target}; roll another one back, or {_remedy(model, wanted)}; "
        f"{model.command('status')} says what became of the one before"
    )


def _remedy(model: ServingModel, wanted: list[Release]) -> str:
    """Return what helps where some releases cannot come back: a file that is put back, or another version."""
    if faults := dict.fromkeys(fault for release in wanted for fault in file_faults(model, release)):
        return f"mend {', '.join(faults)}"
    if files := file_versions(model):
        return f"promote one of {[*files]}, which are published: {model.command('promote', f'--version {max(files)}')}"
    return f"out: {model.command('publish')}"
