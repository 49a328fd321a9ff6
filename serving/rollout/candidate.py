"""The version under test. models.config does not name it: the server learns of it by a reload request alone.

A reload names everything that is to be served, so each one carries the candidates of all namespaces: those in the
journals `serving/candidates/<model>.json`. A candidate that was lost with a restarted server is loaded again by the
next step.
"""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

from feature_repo.contracts.publishing import CorruptRecordError, read_json, sync_directory, write_json
from serving.protocol.errors import TransientCallError
from serving.rollout.models_config import add_version, promoted_versions, read_models_config
from serving.rollout.serving_model import held

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import Any

    from serving.rollout.serving_model import ServingModel

log = logging.getLogger(__name__)


def configuration_lock(model: ServingModel) -> AbstractContextManager[None]:
    """Hold models.config and the order of reloads; always within the model's own lock."""
    path = model.places.root / "locks" / "models.config.lock"
    return held(path, model.settings.rollout_call_seconds, "models.config")


def load(model: ServingModel, version: int) -> None:
    """Make the server serve `version` beside what is promoted, and wait until it is AVAILABLE.

    Raises:
        CallError: The server refused, or the version did not load; it is withdrawn.
        TransientCallError: The server does not answer; the next try takes it up from here.
    """
    with configuration_lock(model):
        write_json(_journal(model), {"model": model.name, "version": version, "base_path": str(model.base_path)})
        make_available(model, [version])


def make_available(model: ServingModel, versions: Collection[int]) -> None:
    """Load `versions` beside everything else and wait for them; the caller holds the configuration's lock."""
    config = _wanted(model)
    for version in versions:
        add_version(config, model.name, model.base_path, version)
    model.server.reload_config(config)
    for version in versions:
        model.server.wait_available(model.name, version, deadline_s=model.settings.rollout_available_seconds)


def ensure_loaded(model: ServingModel, version: int) -> None:
    """Load `version` unless it is AVAILABLE already."""
    if not is_available(model, version):
        load(model, version)


def is_available(model: ServingModel, version: int) -> bool:
    """Ask the server."""
    return any(
        status.version == version and status.state == "AVAILABLE" for status in model.server.model_status(model.name)
    )


def forget(model: ServingModel) -> None:
    """The candidate is one no longer: it was promoted, or is withdrawn."""
    _journal(model).unlink(missing_ok=True)


def withdraw(model: ServingModel, version: int) -> None:
    """Take a version that failed from the server and from the disk; what is promoted is left alone."""
    with configuration_lock(model):
        forget(model)
        if version in promoted_versions(read_models_config(model.places.models_config), model.name):
            return
        wanted = _wanted(model)
        try:
            model.server.reload_config(wanted)
        except TransientCallError as error:
            # A server that comes back reads models.config, which never named the version.
            log.warning("%s version %d: the server could not be told of its withdrawal: %s", model.name, version, error)
    remove_version(model.version_path(version))
    log.warning("%s version %d is withdrawn", model.name, version)


def remove_version(path: Path) -> None:
    """Delete a version's folder; it leaves its name first, so that nobody loads half of it."""
    if not path.is_dir():
        return
    aside = path.with_name(f".{path.name}.withdrawn")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    sync_directory(path.parent)
    shutil.rmtree(aside)


def reload_promoted(model: ServingModel) -> None:
    """Make the server serve models.config and the candidates; the caller holds the configuration's lock."""
    model.server.reload_config(_wanted(model))


def _wanted(model: ServingModel) -> Any:  # noqa: ANN401 - a message class made at run time
    config = read_models_config(model.places.models_config)
    for name, base_path, version in _journalled(model):
        if (base_path / str(version)).is_dir():
            add_version(config, name, base_path, version)
    return config


def _journal(model: ServingModel) -> Path:
    return model.places.root / "candidates" / f"{model.name}.json"


def _journalled(model: ServingModel) -> Iterator[tuple[str, Path, int]]:
    """Return model, base path and version of every namespace's candidate."""
    base = model.places.root
    for path in sorted((base / "candidates").glob("[!.]*.json")):
        record = read_json(path)
        name, base_path, version = record.get("model"), record.get("base_path"), record.get("version")
        if not (isinstance(name, str) and isinstance(base_path, str) and isinstance(version, int)):
            msg = f"{path}: expected model, base_path and version, received {record}; remove the file"
            raise CorruptRecordError(msg)
        yield name, type(base)(base_path), version
