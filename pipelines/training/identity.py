"""Which inputs make two training sets the same, and whether a stored one still is what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.manifests import TRAINING_FILES, TRANSFORMS_FILE, TrainingKind, TrainingSet
from feature_repo.contracts.places import MANIFEST
from feature_repo.contracts.publishing import CorruptRecordError, file_sha256, inputs_id
from pipelines.training.columns import encoded_columns
from pipelines.training.errors import CorruptTrainingSetError
from pipelines.training.files import stored_sha256
from pipelines.training.labels import DRAWING, SAMPLING, labelled_positive
from pipelines.training.listed import CHOOSING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from feature_repo.contracts.features import FeatureService
    from feature_repo.contracts.schemas import Schema
    from pipelines.settings import Settings

REVISION = 5
"""Raised by whoever changes how a training set is made from the same inputs."""


def training_set_id(inputs: Mapping[str, object]) -> str:
    """Return the name of the training set that `inputs` make."""
    return inputs_id(inputs)


def settings_inputs(
    settings: Settings, schema: Schema, kind: TrainingKind, service: FeatureService
) -> dict[str, object]:
    """Return the settings that determine a training set's content."""
    common = {
        "revision": REVISION,
        "kind": kind.value,
        "refresh_hours": settings.refresh_hours,
        "encodings": {column.name: column.encoding_definition for column in encoded_columns(schema, kind, service)},
    }
    if kind is TrainingKind.LISTS:
        return common | {"list_rows": [settings.list_rows, CHOOSING] if settings.list_rows else 0}
    return common | {
        "negatives": [settings.negatives, DRAWING] if schema.is_implicit and kind is TrainingKind.RANKING else 0,
        "samples_per_user": [settings.samples_per_user, SAMPLING] if settings.samples_per_user else 0,
        "weight_half_life_days": settings.weight_half_life_days,
        "label_min_value": labelled_positive(settings, schema).min_value,
        "train_fraction": settings.train_fraction,
        "valid_fraction": settings.valid_fraction,
    }


def verified(directory: Path) -> TrainingSet:
    """Return the record of a stored training set after comparing every file with it.

    CorruptTrainingSetError names what differs.
    """
    remedy = f"remove {directory} and run the job again"
    try:
        record = TrainingSet.read(directory / MANIFEST)
        found = {name: stored_sha256(directory / name) for name in TRAINING_FILES}
        found[TRANSFORMS_FILE] = file_sha256(directory / TRANSFORMS_FILE)
    except (OSError, ValueError, CorruptRecordError) as error:
        msg = f"training set {directory.name} cannot be read ({error}); {remedy}"
        raise CorruptTrainingSetError(msg) from error
    different = sorted(
        name for name in found.keys() | record.checksums.keys() if found.get(name) != record.checksums.get(name)
    )
    if different or record.training_set_id != directory.name:
        msg = f"training set {directory.name}: {different or 'the id'} differs from its manifest; {remedy}"
        raise CorruptTrainingSetError(msg)
    return record
