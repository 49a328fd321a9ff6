"""Registry → disk → server: a version is checked, appears whole or not at all, and is loaded beside the old one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.protocol.errors import CallError, TransientCallError
from serving.rollout import candidate
from serving.rollout.admission import admitted
from serving.rollout.fetch import bring_to_disk
from serving.rollout.file_parts import publish_file
from serving.rollout.models_config import promoted_versions, read_models_config
from serving.rollout.registry import SHA256_TAG
from serving.rollout.switching import at_work, serve

if TYPE_CHECKING:
    from pathlib import Path

    from feature_repo.contracts.manifests import PartKind
    from serving.rollout.registry import RegisteredVersion
    from serving.rollout.serving_model import ServingModel


def publish(model: ServingModel, version: int) -> dict[str, object]:
    """Bring a version from the registry to AVAILABLE; done again, it changes nothing.

    Raises:
        RejectedError: The gates did not let it through.
        NumberTakenError: Another model serves under its number.
        UnfitModelError: Its checksum or its signatures are wrong; nothing was published.
        CallError: It did not load; it is withdrawn, and what was served is served still.
    """
    with at_work(model):
        bring_to_server(model, admitted(model, version))
    return {"model": model.name, "version": str(version)}


def publish_part_file(model: ServingModel, file: Path, kind: PartKind, run_id: str = "") -> dict[str, object]:
    """Put a part that is a file into the state folder; the same content is the same version.

    Raises:
        RolloutError: There is no such file or namespace, or its kind is another than the part has.
        CorruptRecordError: It should be a JSON object, and is none.
    """
    with at_work(model):
        part = publish_file(model, file, kind, run_id)
    return {"model": model.name, "version": part.version, "checksum": part.checksum}


def bring_to_server(model: ServingModel, registered: RegisteredVersion) -> None:
    """Bring a version that was admitted to AVAILABLE; the caller holds the lock.

    Raises:
        UnfitModelError: Its checksum or its signatures are wrong; nothing was published.
        CallError: It did not load; it is withdrawn, and what was served is served still.
    """
    version = registered.version
    candidate.available_versions(model)  # is there a server at all?
    bring_to_disk(model, version, registered.run_id, registered.tag(SHA256_TAG))
    if version not in promoted_versions(read_models_config(model.places.models_config), model.name):
        _load_or_withdraw(model, registered)
    elif not candidate.is_available(model, version):
        serve(model, model.current_release())


def _load_or_withdraw(model: ServingModel, registered: RegisteredVersion) -> None:
    try:
        candidate.load(model, registered)
    except TransientCallError:
        raise  # no verdict on the version: the next try takes it up
    except CallError:
        candidate.withdraw(model, registered.version)
        raise
