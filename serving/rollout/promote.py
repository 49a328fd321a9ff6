"""Makes a loaded version the one that users get.

The steps, each of which may be the last before a kill -9; the next run of the same command repeats them all:

1. `v<version>.json`, the Release
2. models.config: the version and the one before it, labels `stable` and `previous`; a server started now serves both
3. the running server takes that configuration
4. `current.json`, the pointer: the recommender asks for the new version from here on
5. the registry's aliases, `previous` and then `champion`
6. the candidate's journal goes, and with it versions that are too old

Until 4 everybody gets the old version, which stays loaded throughout. After it everybody gets the new one.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.contracts.manifests import Release, TrainingSet, Verdict
from serving.rollout import candidate
from serving.rollout.errors import RolloutError
from serving.rollout.models_config import (
    PREVIOUS,
    STABLE,
    read_models_config,
    set_model,
    write_models_config,
)
from serving.rollout.publish import bring_to_disk, prune
from serving.rollout.registry import CHAMPION, SHA256_TAG
from serving.rollout.registry import PREVIOUS as PREVIOUS_ALIAS
from serving.rollout.verdict import require_promotion

if TYPE_CHECKING:
    from serving.rollout.registry import RegisteredVersion
    from serving.rollout.serving_model import ServingModel

TRAINING_SET_ARTIFACT = "training_set.json"
VERDICT_ARTIFACT = "gates/verdict.json"


def promote(model: ServingModel, version: int) -> dict[str, object]:
    """Make `version` the champion: for the server, for the recommender, and in the registry.

    Raises:
        RejectedError: The gates did not let it through.
        CallError: The server refused; the old version serves.
    """
    with model.locked():
        registered = model.registry.version(model.name, version)
        require_promotion(registered)
        current = model.current_release()
        release = _release(model, registered, _previous_of(current, version))
        return _switch(model, registered, release)


def rollback(model: ServingModel) -> dict[str, object]:
    """Go back to the version before the current one; done twice, it is a switch to and fro.

    Raises:
        RolloutError: There is no release, or none before it.
    """
    with model.locked():
        current = model.current_release()
        if current is None or not current.previous_version:
            msg = (
                f"{model.name}: expected a release with one before it, found {current and current.version}; promote one"
            )
            raise RolloutError(msg)
        version = int(current.previous_version)
        registered = model.registry.version(model.name, version)
        before = Release.read(model.release_path(version))
        release = dataclasses.replace(
            before, previous_version=current.version, verdict=f"rolled back from version {current.version}"
        )
        return _switch(model, registered, release)


def _previous_of(current: Release | None, version: int) -> str:
    """Return the version that a promotion of `version` replaces; of a repeated promotion, what the first replaced."""
    if current is None:
        return ""
    return current.previous_version if current.version == str(version) else current.version


def _release(model: ServingModel, registered: RegisteredVersion, previous_version: str) -> Release:
    with tempfile.TemporaryDirectory(prefix="kestrel-release-") as folder:
        fetch = model.registry.download_run_file
        training_set = TrainingSet.read(fetch(registered.run_id, TRAINING_SET_ARTIFACT, Path(folder)))
        verdict = Verdict.read(fetch(registered.run_id, VERDICT_ARTIFACT, Path(folder)))
    return Release(
        namespace=model.namespace,
        model=model.signature.model,
        version=str(registered.version),
        run_id=registered.run_id,
        saved_model_sha256=registered.tag(SHA256_TAG),
        feature_service=training_set.feature_service,
        feature_service_hash=training_set.feature_service_hash,
        views=training_set.views,
        inputs=[column.name for column in model.signature.input_columns],
        training_set_id=training_set.training_set_id,
        train_end=training_set.train_end,
        cutoff=training_set.cutoff,
        item_embeddings=training_set.item_embeddings,
        item_embeddings_sha256=training_set.item_embeddings_sha256,
        verdict=verdict.reason,
        previous_version=previous_version,
    )


def _switch(model: ServingModel, registered: RegisteredVersion, release: Release) -> dict[str, object]:
    version = registered.version
    bring_to_disk(model, registered)
    candidate.ensure_loaded(model, version)
    release.write(model.release_path(version))
    _configure(model, release)
    release.write(model.current_release_path)
    if release.previous_version:
        model.registry.set_alias(model.name, PREVIOUS_ALIAS, int(release.previous_version))
    model.registry.set_alias(model.name, CHAMPION, version)
    candidate.forget(model)
    prune(model)
    return {"model": model.name, "version": release.version, "previous_version": release.previous_version}


def _configure(model: ServingModel, release: Release) -> None:
    """Make the configuration, on disk and in the running server, serve the release and the one before it."""
    labels = {STABLE: int(release.version)}
    if release.previous_version and model.version_path(int(release.previous_version)).is_dir():
        labels[PREVIOUS] = int(release.previous_version)
    with candidate.configuration_lock(model):
        config = read_models_config(model.places.models_config)
        before = read_models_config(model.places.models_config)
        set_model(config, model.name, model.base_path, labels.values(), labels)
        if config != before:
            # A server refuses labels of versions that are not AVAILABLE.
            candidate.make_available(model, labels.values())
            write_models_config(model.places.models_config, config)
        candidate.reload_promoted(model)
