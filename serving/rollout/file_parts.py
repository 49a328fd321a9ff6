"""Parts of a release that are one file each: vocabularies, quotas, arms. Published by rename, checked by checksum.

`serving/parts/<namespace>.<part>/<version>/` has the file under its own name, and `part.json`, the Part that it is. The
same content is the same version.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from feature_repo.contracts.manifests import FILE_KINDS, Part, PartKind
from feature_repo.contracts.places import PART
from feature_repo.contracts.publishing import file_sha256, publishing_directory
from serving.rollout.errors import LostModelError, RolloutError
from serving.rollout.serving_model import is_number

if TYPE_CHECKING:
    from pathlib import Path

    from feature_repo.contracts.manifests import Release
    from serving.rollout.serving_model import ServingModel


def publish_file(model: ServingModel, file: Path, kind: PartKind, run_id: str = "") -> Part:
    """Put a file into the state folder as the next version of `model.part`; the caller holds the lock.

    Content that is a version already, on disk or in a release, is that version.

    Raises:
        RolloutError: It is no kind of file, no file, or the part's name is that of another kind.
    """
    if kind not in FILE_KINDS:
        msg = f"part {model.part}: expected one of the kinds {sorted(map(str, FILE_KINDS))} for a file, received {kind}"
        raise RolloutError(msg)
    if not file.is_file() or file.name == PART:
        msg = f"part {model.part}: expected a file of another name than {PART}, received {file}; name another"
        raise RolloutError(msg)
    known = {**_released(model), **_on_disk(model)}
    other = next((part for part in known.values() if part.kind is not kind), None) or _other_kind(model, kind)
    if other is not None:
        msg = f"part {model.part}: expected the kind {other.kind}, which it has, received {kind}; choose another name"
        raise RolloutError(msg)
    checksum = file_sha256(file)
    same = next((part for part in known.values() if (part.checksum, part.path) == (checksum, file.name)), None)
    version = same.version if same is not None else str(max(map(int, known), default=0) + 1)
    part = same or Part(model.part, kind, version, checksum, run_id, path=file.name)
    folder = _folder(model, version)
    if same is not None and folder.exists() and _fault(model, part):
        shutil.rmtree(folder)  # damaged: nobody could load it
    with publishing_directory(folder) as made:
        shutil.copyfile(file, made / file.name)
        part.write(made / PART)
    return part


def published_part(model: ServingModel, version: int) -> Part | None:
    """Return a version of a part that is a file, None if there is none: then it is a model's."""
    return _on_disk(model).get(str(version))


def check_files(model: ServingModel, release: Release) -> None:
    """Look at every file of a release before it comes into force.

    Raises:
        LostModelError: One is missing, or has other bytes.
    """
    for fault in file_faults(model, release):
        raise LostModelError(fault)


def file_faults(model: ServingModel, release: Release) -> list[str]:
    """Return what is wrong with the files of a release, with what mends it."""
    return [
        fault
        for part in release.parts.values()
        if part.kind in FILE_KINDS and (fault := _fault(model.of(part.name), part))
    ]


def _fault(model: ServingModel, part: Part) -> str:
    path = _folder(model, part.version) / part.path
    found = file_sha256(path) if path.is_file() else "none"
    if found == part.checksum:
        return ""
    return (
        f"{path}: expected SHA-256 {part.checksum}, found {found}; "
        f"{model.command('publish-file', f'--kind {part.kind} --file <the same content>')} puts it back"
    )


def _folder(model: ServingModel, version: str) -> Path:
    return model.places.file_part(model.namespace, model.part) / version


def _on_disk(model: ServingModel) -> dict[str, Part]:
    """Return version → part."""
    folder = model.places.file_part(model.namespace, model.part)
    found = (path for path in folder.glob(f"*/{PART}") if is_number(path.parent.name))
    return {path.parent.name: Part.read(path, "publish the same file again") for path in found}


def _released(model: ServingModel) -> dict[str, Part]:
    """Return version → part of what is in force and of what is before it."""
    return {part.version: part for part in (model.before(), model.current()) if part and part.kind in FILE_KINDS}


def _other_kind(model: ServingModel, kind: PartKind) -> Part | None:
    current = model.current()
    return current if current is not None and current.kind is not kind else None
