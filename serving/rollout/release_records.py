"""Makes the Part that a registered version is out of what its MLflow run recorded."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.contracts.manifests import MODEL_KINDS, Part, PartKind, TrainingSet, Verdict, model_data
from feature_repo.contracts.publishing import read_json
from feature_repo.contracts.schemas import Schema
from feature_repo.contracts.signatures import SIGNATURE_ARTIFACT, Signature, ranking
from serving.rollout.errors import UnknownVersionError
from serving.rollout.registry import SHA256_TAG

if TYPE_CHECKING:
    from serving.rollout.registry import RegisteredVersion
    from serving.rollout.serving_model import ServingModel

TRAINING_SET_ARTIFACT = "training_set.json"
VERDICT_ARTIFACT = "gates/verdict.json"
KIND_TAG, NEEDS_TAG = "kestrel.part_kind", "kestrel.part_needs"
"""Of a registered version that is not a ranker: its kind, and the snapshot's parts that it needs, with commas."""


def signature_of(model: ServingModel, registered: RegisteredVersion) -> Signature:
    """Return what the version takes and returns, as its run says.

    A run from before signatures were stored says on what data set it was trained, whose default they all had.

    Raises:
        UnknownVersionError: The run lacks its record of the training set, too.
        CorruptRecordError: What it says is no signature.
    """
    with tempfile.TemporaryDirectory(prefix="kestrel-release-") as folder:
        try:
            path = model.registry.download_run_file(registered.run_id, SIGNATURE_ARTIFACT, Path(folder))
        except UnknownVersionError:
            return ranking(Schema.from_json(_training_set(model, registered, Path(folder)).schema))
        return Signature.from_json(read_json(path), f"{model.name} version {registered.version}, {SIGNATURE_ARTIFACT}")


def part_of(model: ServingModel, registered: RegisteredVersion) -> tuple[Part, str]:
    """Return the part that a version is, and the gates' reason to let it through.

    Raises:
        UnknownVersionError: The run lacks an artifact or has the verdict on another, or the version lacks its checksum.
    """
    with tempfile.TemporaryDirectory(prefix="kestrel-release-") as folder:
        training_set = _training_set(model, registered, Path(folder))
        verdict = Verdict.read(model.registry.download_run_file(registered.run_id, VERDICT_ARTIFACT, Path(folder)))
    if verdict.run_id != registered.run_id:
        msg = (
            f"{model.name} version {registered.version}, artifact {VERDICT_ARTIFACT}: expected the verdict on run "
            f"{registered.run_id}, received that on run {verdict.run_id}; gate it anew"
        )
        raise UnknownVersionError(msg)
    kind = kind_of(registered)
    signature = signature_of(model, registered) if kind is PartKind.RANKER else None
    part = Part(
        name=model.part,
        kind=kind,
        version=str(registered.version),
        checksum=registered.tag(SHA256_TAG),
        run_id=registered.run_id,
        signature=signature.to_json() if signature else {},
        needs=_needs(registered),
        data=model_data(training_set, signature.views if signature else training_set.views),
    )
    return part, verdict.reason


def kind_of(registered: RegisteredVersion) -> PartKind:
    """Return what a version is: a ranker, unless its tag says otherwise.

    Raises:
        UnknownVersionError: It is nothing that a model server serves.
    """
    said = registered.tags.get(KIND_TAG, PartKind.RANKER.value)
    if said not in MODEL_KINDS:
        msg = (
            f"{registered.model} version {registered.version}, tag {KIND_TAG}: expected one of "
            f"{sorted(map(str, MODEL_KINDS))}, received {said!r}; register it anew"
        )
        raise UnknownVersionError(msg)
    return PartKind(said)


def _needs(registered: RegisteredVersion) -> dict[str, str]:
    names = registered.tags.get(NEEDS_TAG, "")
    return {name.strip(): "" for name in names.split(",") if name.strip()}


def _training_set(model: ServingModel, registered: RegisteredVersion, folder: Path) -> TrainingSet:
    return TrainingSet.read(model.registry.download_run_file(registered.run_id, TRAINING_SET_ARTIFACT, folder))
