"""What a rollout means to do, written before it does it, and what it has done.

`serving/rollouts/<namespace>/pending.json` is there while a rollout changes who serves: whoever finds it without
its writer knows what was going on. `history.json` has the switches that came to their end, the newest last.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

from feature_repo.contracts.publishing import CorruptRecordError, read_json, sync_directory, write_json
from feature_repo.contracts.signatures import RANKING_MODEL

if TYPE_CHECKING:
    from pathlib import Path

    from feature_repo.contracts.manifests import Release
    from serving.rollout.serving_model import ServingModel

_KEPT = 100
"""Switches that the history remembers."""
_HISTORY_REMEDY = "remove it: only what keys were used for is forgotten, so that a late retry would switch again"


class Kind(StrEnum):
    """What kind of switch it is."""

    PROMOTION = "promotion"
    ROLLBACK = "rollback"
    APPROVAL = "approval"
    """No switch, but what let one through: a person's word on a version that was on hold."""


@dataclass(frozen=True, slots=True)
class Intention:
    """A switch: what is to be in force after it."""

    kind: Kind
    version: str
    """Of `part`, as the two that follow; for a rollback, of the part by which it was asked for."""
    previous_version: str
    why: str
    key: str
    """Names the caller's one wish, however often it is tried; empty if the caller gave none."""
    began: str
    """ISO 8601, UTC."""
    run_id: str = ""
    """Whose version it is; empty in what was written before runs were written down."""
    part: str = RANKING_MODEL
    release: str = ""
    """The number of the release that is to be in force; empty in what was written before releases had numbers of their
    own: they bore their ranker's."""
    previous_release: str = ""
    """The number of the release before it."""
    parts: str = ""
    """Every part of the release with its version, where it has more than one; for a person."""

    def is_in_force(self, release: Release) -> bool:
        """Tell whether `release`, the one in force, is what this switch was to bring about."""
        wanted = (self.release, self.previous_release) if self.release else (self.version, self.previous_version)
        found = (str(release.number), str(release.previous or ""))
        part = release.parts.get(self.part)
        return (*found, release.why) == (*wanted, self.why) and self.run_id in {"", part.run_id if part else ""}

    def __str__(self) -> str:
        """Name it for a person."""
        part = "" if self.part == RANKING_MODEL else f" of {self.part}"
        return f"the {self.kind} of version {self.version}{part}, begun at {self.began}"


def intend(model: ServingModel, kind: Kind, release: Release, key: str) -> Intention:
    """Write down that `release` is to come into force."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    part, before = (parts.get(model.part) for parts in (release.parts, release.previous_parts))
    intention = Intention(
        kind,
        part.version if part is not None else "",
        before.version if before is not None else "",
        release.why,
        key,
        now,
        part.run_id if part is not None else "",
        model.part,
        str(release.number),
        str(release.previous or ""),
        ", ".join(f"{name} {each.version}" for name, each in sorted(release.parts.items()))
        if len(release.parts) > 1
        else "",
    )
    write_json(_pending_path(model), dataclasses.asdict(intention))
    return intention


def pending(model: ServingModel) -> Intention | None:
    """Return the switch that has not come to its end, None if there is none."""
    try:
        record = read_json(_pending_path(model), _pending_remedy(model))
    except FileNotFoundError:
        return None
    return _intention(_pending_path(model), record, _pending_remedy(model))


def done(model: ServingModel, intention: Intention) -> None:
    """Enter a switch into the history, once, and close it."""
    past = history(model)
    if intention not in past:
        entries = [dataclasses.asdict(entry) for entry in [*past, intention][-_KEPT:]]
        write_json(_history_path(model), {"switches": entries})
    drop(model)


def drop(model: ServingModel) -> None:
    """Close a switch that came to nothing."""
    path = _pending_path(model)
    path.unlink(missing_ok=True)
    sync_directory(path.parent)


def history(model: ServingModel) -> list[Intention]:
    """Return the switches that came to their end, the newest last."""
    path = _history_path(model)
    try:
        record = read_json(path, _HISTORY_REMEDY)
    except FileNotFoundError:
        return []
    entries = record.get("switches")
    if not isinstance(entries, list):
        msg = f"{path}: expected a list of switches, received {entries!r:.80}; {_HISTORY_REMEDY}"
        raise CorruptRecordError(msg)
    return [_intention(path, entry, _HISTORY_REMEDY) for entry in entries]


def done_with(model: ServingModel, kind: Kind, key: str) -> Intention | None:
    """Return the switch that was made for `key`, None if none was, or if there is no key."""
    wanted = (kind, key, model.part)
    found = (entry for entry in reversed(history(model)) if key and (entry.kind, entry.key, entry.part) == wanted)
    return next(found, None)


def _intention(path: Path, record: object, remedy: str) -> Intention:
    names = {field.name for field in dataclasses.fields(Intention)}
    optional = {field.name for field in dataclasses.fields(Intention) if field.default is not dataclasses.MISSING}
    is_one = isinstance(record, dict) and names - optional <= record.keys() <= names
    if not is_one or not all(isinstance(value, str) for value in cast("dict[str, Any]", record).values()):
        msg = f"{path}: expected texts {sorted(names)}, received {record!r:.200}; {remedy}"
        raise CorruptRecordError(msg)
    values = cast("dict[str, str]", record)
    try:
        kind = Kind(values["kind"])
    except ValueError as error:
        msg = f"{path}: field kind: {error}; {remedy}"
        raise CorruptRecordError(msg) from error
    return Intention(kind, **{name: value for name, value in values.items() if name != "kind"})


def _pending_remedy(model: ServingModel) -> str:
    return f"remove it, then {model.command('reconcile')} makes everybody agree with the release in force"


def _pending_path(model: ServingModel) -> Path:
    return model.places.rollouts(model.namespace) / "pending.json"


def _history_path(model: ServingModel) -> Path:
    return model.places.rollouts(model.namespace) / "history.json"
