"""Parts of a release that are one file each: vocabularies, quotas, re-ranking, arms.

Published by rename, checked by checksum.

`serving/parts/<namespace>.<part>/<version>/` has the file under its own name, and `part.json`, the Part that it is. The
same content is the same version.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.contracts.list_policy import POLICY_ARTIFACTS, POLICY_PARTS, ListPolicy
from feature_repo.contracts.manifests import FILE_KINDS, Part, PartKind
from feature_repo.contracts.places import PART, Namespace
from feature_repo.contracts.publishing import (
    CorruptRecordError,
    file_sha256,
    parse_json,
    publishing_directory,
    read_json,
)
from feature_repo.contracts.signatures import RANKING_MODEL
from serving.rollout.errors import LostModelError, RolloutError, UnknownVersionError
from serving.rollout.serving_model import is_number

if TYPE_CHECKING:
    from feature_repo.contracts.manifests import Release
    from serving.rollout.registry import RegisteredVersion
    from serving.rollout.serving_model import ServingModel

_JSON_KINDS = frozenset({PartKind.QUOTAS, PartKind.RERANKING, PartKind.ARMS})
"""Kinds whose files are one JSON object each."""


def publish_file(model: ServingModel, file: Path, kind: PartKind, run_id: str = "") -> Part:
    """Put a file into the state folder as the next version of `model.part`; the caller holds the lock.

    Content that is a version already, on disk or in a release, is that version.

    Raises:
        RolloutError: It is no kind of file, no file with anything in it, the part's name is that of another kind, or
            nobody knows the namespace.
        CorruptRecordError: It should be a JSON object, and is none, or says what no recommender could go by.
    """
    if kind not in FILE_KINDS:
        msg = f"part {model.part}: expected one of the kinds {sorted(map(str, FILE_KINDS))} for a file, received {kind}"
        raise RolloutError(msg)
    content = _content(model, file)
    _check_content(model, content, file, kind)
    _check_namespace(model)
    known = file_versions(model)
    other = next((part for part in known.values() if part.kind is not kind), None) or _other_kind(model, kind)
    if other is not None:
        msg = f"part {model.part}: expected the kind {other.kind}, which it has, received {kind}; choose another name"
        raise RolloutError(msg)
    if model.part == RANKING_MODEL or model.base_path.is_dir():
        msg = f"part {model.part}: expected the name of a file, received that of a model; choose another name"
        raise RolloutError(msg)
    checksum = hashlib.sha256(content).hexdigest()
    same = next((part for part in known.values() if (part.checksum, part.path) == (checksum, file.name)), None)
    version = same.version if same is not None else str(max(known, default=0) + 1)
    part = same or Part(model.part, kind, version, checksum, run_id, path=file.name)
    folder = _folder(model, version)
    if same is not None and folder.exists() and _fault(model, part):
        shutil.rmtree(folder)  # damaged: nobody could load it
    with publishing_directory(folder) as made:
        (made / file.name).write_bytes(content)  # what was looked at, whatever has become of the file
        part.write(made / PART)
    return part


def parts_of_run(model: ServingModel, registered: RegisteredVersion) -> dict[str, Part]:
    """Return name → part of the files that were fitted with a model, each published; the caller holds the lock.

    A run of before there were such files has none: the parts in force stay.

    Raises:
        RegistryUnavailableError: MLflow does not answer.
        UnknownVersionError: The run has some of the files, and lacks others.
        CorruptRecordError: A file says what no recommender could go by.
    """
    with tempfile.TemporaryDirectory(prefix="kestrel-part-") as folder:
        files: dict[str, Path] = {}
        for name in POLICY_PARTS:
            with suppress(UnknownVersionError):
                artifact = f"{POLICY_ARTIFACTS}/{name}.json"
                files[name] = model.registry.download_run_file(registered.run_id, artifact, Path(folder))
        if files and (absent := sorted(POLICY_PARTS.keys() - files.keys())):
            msg = (
                f"{registered.model} version {registered.version}, run {registered.run_id}: expected the artifacts "
                f"{POLICY_ARTIFACTS}/{', '.join(POLICY_PARTS)}, {absent} are missing; train and gate it anew"
            )
            raise UnknownVersionError(msg)
        return {
            name: publish_file(model.of(name), file, POLICY_PARTS[name], registered.run_id)
            for name, file in files.items()
        }


def published_part(model: ServingModel, version: int) -> Part | None:
    """Return a version of a part that is a file, None of a part that is none: then it is a model's.

    Raises:
        UnknownVersionError: The part is a file, and has no such version.
    """
    known = file_versions(model)
    if known and version not in known:
        kind = next(iter(known.values())).kind
        msg = (
            f"part {model.part}: expected one of its versions {[*known]}, received {version}; "
            f"{model.command('publish-file', f'--kind {kind} --file <file>')} makes the next one"
        )
        raise UnknownVersionError(msg)
    return known.get(version)


def file_versions(model: ServingModel) -> dict[int, Part]:
    """Return version → part of what is known of a file, in order: what lies on disk, or was released last."""
    known = {**_released(model), **_on_disk(model)}
    return {version: known[version] for version in sorted(known)}


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
        return _unfit(path, part)
    return (
        f"{path}: expected SHA-256 {part.checksum}, found {found}; "
        f"{model.command('publish-file', f'--kind {part.kind} --file <the same content>')} puts it back"
    )


def _unfit(path: Path, part: Part) -> str:
    """Return why no recommender could go by a file, as one of before its content was looked at; empty if it could."""
    if POLICY_PARTS.get(part.name) is not part.kind:
        return ""
    try:
        ListPolicy.from_json({part.name: read_json(path)}, str(path))
    except CorruptRecordError as error:
        return f"{error}; publish what is mended, and promote that version"
    return ""


def _folder(model: ServingModel, version: str) -> Path:
    return model.places.file_part(model.namespace, model.part) / version


def _content(model: ServingModel, file: Path) -> bytes:
    """Return what is in a file that becomes a part: read once, so that what is published is what was looked at."""
    what = f"part {model.part}: expected a file"
    if not file.is_file():
        msg = f"{what}, found {'a folder' if file.is_dir() else 'none'} at {file}; name another"
        raise RolloutError(msg)
    if file.name == PART:
        msg = f"{what} of another name than {PART}, which tells of the file, received {file}; rename it"
        raise RolloutError(msg)
    content = file.read_bytes()
    if not content:
        msg = f"{what} with something in it, received {file}, which is empty; write it first, or name another"
        raise RolloutError(msg)
    return content


def _check_content(model: ServingModel, content: bytes, file: Path, kind: PartKind) -> None:
    """Refuse what no recommender could go by, and names by which none would find it."""
    if POLICY_PARTS.get(model.part, kind) is not kind:
        msg = f"part {model.part}: expected the kind {POLICY_PARTS[model.part]}, received {kind}; choose another name"
        raise RolloutError(msg)
    if kind in POLICY_PARTS.values() and model.part not in POLICY_PARTS:
        (name,) = (name for name, own in POLICY_PARTS.items() if own is kind)
        msg = f"part {model.part}: expected the name {name} for the kind {kind}, by which recommenders look; use it"
        raise RolloutError(msg)
    if kind in _JSON_KINDS:
        found = parse_json(content, str(file), f"mend it, and publish it as {kind} again")
        if kind in POLICY_PARTS.values():
            ListPolicy.from_json({model.part: found}, str(file))


def _check_namespace(model: ServingModel) -> None:
    """Refuse a name that is mistyped: nothing of it was ingested, published or promoted."""
    ingested = Namespace(model.settings.state, model.namespace).schema.exists()
    if not (ingested or model.of(RANKING_MODEL).base_path.is_dir() or model.current_release() is not None):
        msg = (
            f"namespace {model.namespace}: expected one with data or with a ranker, found neither; is the name right? "
            f"`python -m pipelines ingest --namespace {model.namespace}` begins a new one"
        )
        raise RolloutError(msg)


def _on_disk(model: ServingModel) -> dict[int, Part]:
    """Return version → part."""
    folder = model.places.file_part(model.namespace, model.part)
    found = (path for path in folder.glob(f"*/{PART}") if is_number(path.parent.name))
    return {
        int(path.parent.name): Part.read(path, "remove its folder, and publish the same file again") for path in found
    }


def _released(model: ServingModel) -> dict[int, Part]:
    """Return version → part of what is in force and of what is before it."""
    released = (model.before(), model.current())
    return {int(part.version): part for part in released if part and part.kind in FILE_KINDS}


def _other_kind(model: ServingModel, kind: PartKind) -> Part | None:
    current = model.current()
    return current if current is not None and current.kind is not kind else None
