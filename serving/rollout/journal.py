"""What a rollout means to do, written before it does it, and what it has done.

`serving/rollouts/<model>/pending.json` is there while a rollout changes who serves: whoever finds it without its writer
knows what was going on. `history.json` has the switches that came to their end, the newest last.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

from feature_repo.contracts.publishing import CorruptRecordError, read_json, sync_directory, write_json

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
    previous_version: str
    why: str
    key: str
    """Names the caller's one wish, however often it is tried; empty if the caller gave none."""
    began: str
    """ISO 8601, UTC."""
    run_id: str = ""
    """Whose version it is; empty in what was written before runs were written down."""

    def is_in_force(self, release: Release | None) -> bool:
        """Tell whether `release`, the one in force, is what this switch was to bring about."""
        return (
            release is not None
            and (release.version, release.previous_version, release.verdict)
            == (self.version, self.previous_version, self.why)
            and self.run_id in {"", release.run_id}
        )

    def __str__(self) -> str:
        """Name it for a person."""
        return f"the {self.kind} of version {self.version}, begun at {self.began}"


def intend(model: ServingModel, kind: Kind, release: Release, key: str) -> Intention:
    """Write down that `release` is to come into force."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    intention = Intention(kind, release.version, release.previous_version, release.verdict, key, now, release.run_id)
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
    found = (entry for entry in reversed(history(model)) if key and (entry.kind, entry.key) == (kind, key))
    return next(found, None)


def _intention(path: Path, record: object, remedy: str) -> Intention:
    names = {field.name for field in dataclasses.fields(Intention)}
    is_one = isinstance(record, dict) and record.keys() | {"run_id"} == names
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
    return model.places.root / "rollouts" / model.name / "pending.json"


def _history_path(model: ServingModel) -> Path:
    return model.places.root / "rollouts" / model.name / "history.json"
