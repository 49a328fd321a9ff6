"""The version under test: loaded by a reload request, remembered in a journal, labelled `canary` while it is compared.

A reload names everything that is to be served, so each one carries the candidates of all namespaces: those in the
journals `serving/candidates/<model>.json`. A candidate that was lost with a restarted server is loaded again by the
next step. The journal says which run's model it is, for the registry may give the number anew.

A canary is a candidate that models.config names, too, by its label, and that the recommender knows by `canary.json`, a
Release beside the one in force: it sends the canary a share of its requests and shows nobody the answers.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from feature_repo.contracts.publishing import CorruptRecordError, read_json, write_json
from serving.protocol.errors import TransientCallError
from serving.rollout.models_config import (
    add_version,
    canary_version,
    configured_versions,
    drop_versions,
    keep_loadable,
    promoted_versions,
    read_models_config,
    remove_model,
    set_canary,
    write_models_config,
)
from serving.rollout.registry import SHA256_TAG
from serving.rollout.serving_model import held
from serving.rollout.version_folders import remove_version

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    from feature_repo.contracts.manifests import Release
    from serving.protocol.client import VersionStatus
    from serving.rollout.registry import RegisteredVersion
    from serving.rollout.serving_model import ServingModel

log = logging.getLogger(__name__)

_UNLOAD_S = 5.0
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a journal says of a version under test."""

    model: str
    base_path: Path
    version: int
    run_id: str = ""
    """Empty, as the checksum is, in a journal of before runs were written down."""
    saved_model_sha256: str = ""

    def is_of(self, registered: RegisteredVersion) -> bool:
        """Tell whether it is the model that the registry has now: the same run, and the same bytes."""
        received = (registered.run_id, registered.tags.get(SHA256_TAG))
        return not self.run_id or received == (self.run_id, self.saved_model_sha256)


def configuration_lock(model: ServingModel) -> AbstractContextManager[None]:
    """Hold models.config and the order of reloads; always within the model's own lock."""
    path = model.places.root / "locks" / "models.config.lock"
    return held(path, model.settings.rollout_call_seconds, "models.config")


def load(model: ServingModel, registered: RegisteredVersion) -> None:
    """Make the server serve a version beside what is promoted, and wait until it is AVAILABLE.

    A version that was under test before, and that nobody promoted or withdrew, is withdrawn.

    Raises:
        CallError: The server refused, or the version did not load; it is withdrawn.
        TransientCallError: The server does not answer; the next try takes it up from here.
    """
    _begin(model, registered.version, registered.run_id, registered.tag(SHA256_TAG))
    with configuration_lock(model):
        make_available([(model, [registered.version])])


def _begin(model: ServingModel, version: int, run_id: str, sha256: str) -> None:
    before = under_test(model)
    if before is not None and before != version:
        withdraw(model, before)
    record = dataclasses.asdict(Candidate(model.name, model.base_path, version, run_id, sha256))
    write_json(_journal(model), record | {"base_path": str(model.base_path)})


def make_available(wanted: Sequence[tuple[ServingModel, Collection[int]]]) -> None:
    """Load versions of models beside everything else and wait for them; the caller holds the configuration's lock."""
    config = _wanted(wanted[0][0])
    for model, versions in wanted:
        for version in versions:
            add_version(config, model.name, model.base_path, version)
    _reload(wanted[0][0], config)
    for model, versions in wanted:
        for version in versions:
            model.server.wait_available(model.name, version, deadline_s=model.settings.rollout_available_seconds)


def is_available(model: ServingModel, version: int) -> bool:
    """Ask the server."""
    return version in available_versions(model)


def available_versions(model: ServingModel) -> frozenset[int]:
    """Ask the server."""
    return _loaded(model, model.name)


def _loaded(model: ServingModel, name: str) -> frozenset[int]:
    return frozenset(one.version for one in model.server.model_status(name) if one.state == "AVAILABLE")


@contextmanager
def unloaded(model: ServingModel, version: int) -> Iterator[None]:
    """Hold the configuration while the server has no `version`, so that its folder can be put in place.

    A server takes a folder that is replaced for the one that it has loaded: only what it was told to unload does it
    load anew.

    Raises:
        TransientCallError: The server does not answer, or does not let go of the version.
    """
    with configuration_lock(model):
        if _knows(model, version):
            log.warning("%s version %d: unloaded, for its folder is put in place anew", model.name, version)
            config = _wanted(model)
            drop_versions(config, model.name, [version])
            if not configured_versions(config, model.name) & available_versions(model):
                # A server keeps what it has until one of the versions that it is told of is there.
                remove_model(config, model.name)
            _reload(model, config)
            _wait_let_go(model, version)
        yield


def _knows(model: ServingModel, version: int) -> bool:
    """Tell whether the server would not load `version` anew: it has it, is about to, or has failed to."""
    found = [one for one in model.server.model_status(model.name) if one.version == version]
    return any(_is_live(one) or one.error_code for one in found)


def _is_live(status: VersionStatus) -> bool:
    """Tell whether a version is on its way in, there, or on its way out, on one replica at least."""
    return any(state in status.state for state in ("START", "LOADING", "AVAILABLE"))


def _wait_let_go(model: ServingModel, version: int) -> None:
    deadline = time.monotonic() + model.settings.rollout_available_seconds
    while any(one.version == version and _is_live(one) for one in model.server.model_status(model.name)):
        if time.monotonic() > deadline:
            msg = (
                f"{model.name} version {version}: expected the model server to unload it within "
                f"{model.settings.rollout_available_seconds:g} s, it has it still; see the server's log, and try again"
            )
            raise TransientCallError(msg, grpc.StatusCode.DEADLINE_EXCEEDED, "not unloaded")
        time.sleep(_LOOK_S)


def in_journal(model: ServingModel) -> Candidate | None:
    """Return the version under test, None if there is none."""
    try:
        return _read_journal(_journal(model), model)
    except FileNotFoundError:
        return None


def names(model: ServingModel) -> list[str]:
    """Return the parts of the namespace that have a version under test."""
    prefix = f"{model.namespace}."
    found = (path.stem for path in (model.places.root / "candidates").glob(f"{prefix}*.json"))
    return [name.removeprefix(prefix) for name in found]


def under_test(model: ServingModel) -> int | None:
    """Return the number of the version under test, None if there is none."""
    candidate = in_journal(model)
    return candidate.version if candidate is not None else None


def label_canary(model: ServingModel, release: Release) -> None:
    """Give the version in `release` the label, on disk and in the running server, and tell the recommender.

    Raises:
        CallError: The server refused; what it served before, it serves still.
    """
    part = release.parts[model.part]
    version = int(part.version)
    _begin(model, version, part.run_id, part.checksum)
    with configuration_lock(model):
        config = read_models_config(model.places.models_config)
        before = read_models_config(model.places.models_config)
        set_canary(config, model.name, model.base_path, version)
        make_available([(model, [version])])  # a server refuses labels of versions that are not AVAILABLE
        keep_loadable(config)
        if config != before:
            write_models_config(model.places.models_config, config)
        reload_configured([model])
    model.write_pointer(model.canary_release_path, release)


def forget(model: ServingModel, version: int) -> None:
    """`version` is no candidate any longer: it was promoted, or is withdrawn. Another one stays what it is."""
    canary = model.canary()
    if canary is not None and canary.version == str(version):
        model.canary_release_path.unlink(missing_ok=True)
    if under_test(model) == version:
        _journal(model).unlink(missing_ok=True)


def withdraw(model: ServingModel, version: int) -> None:
    """Take a version that failed from the server and from the disk; what is promoted is left alone."""
    with configuration_lock(model):
        forget(model, version)
        config = read_models_config(model.places.models_config)
        if canary_version(config, model.name) == version:
            set_canary(config, model.name, model.base_path, None)
            keep_loadable(config)
            write_models_config(model.places.models_config, config)
        promoted = version in promoted_versions(config, model.name)
        try:
            reload_configured([model])
        except TransientCallError as error:
            # A server that comes back reads models.config, which does not name the version any longer.
            log.warning("%s version %d: the server could not be told of its withdrawal: %s", model.name, version, error)
    if not promoted:
        remove_version(model.version_path(version))
        log.warning("%s version %d is withdrawn", model.name, version)


def reload_configured(models: Sequence[ServingModel]) -> None:
    """Make the server serve models.config and the candidates, and wait until it has let go of what is no longer wanted.

    The caller holds the configuration's lock; it is `models` that are waited for.
    """
    config = _wanted(models[0])
    _reload(models[0], config)
    for model in models:
        _wait_unloaded(model, configured_versions(config, model.name))


def _reload(model: ServingModel, config: Any) -> None:  # noqa: ANN401 - a message class made at run time
    """Send a configuration without the labels of versions that are not loaded: one would spoil the reload for all."""
    for entry in config.model_config_list.config:
        labels = dict(entry.version_labels)
        loaded = _loaded(model, entry.name) if labels else frozenset()
        for label, version in labels.items():
            if version not in loaded:
                log.info("%s: the label %s waits until version %d is loaded", entry.name, label, version)
                del entry.version_labels[label]
    model.server.reload_config(config)


def _wait_unloaded(model: ServingModel, wanted: Collection[int]) -> None:
    """Let the server end what it was told to end; one that waits for a long request is not waited for."""
    deadline = time.monotonic() + _UNLOAD_S
    while available_versions(model) - set(wanted) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)


def _wanted(model: ServingModel) -> Any:  # noqa: ANN401 - a message class made at run time
    config = read_models_config(model.places.models_config)
    for one in _journalled(model):
        add_version(config, one.model, one.base_path, one.version)
    keep_loadable(config)  # one missing folder would spoil the whole reload
    return config


def _journal(model: ServingModel) -> Path:
    return model.places.root / "candidates" / f"{model.name}.json"


def _journalled(model: ServingModel) -> Iterator[Candidate]:
    """Return every namespace's candidate, without those whose journal is damaged: their own status names it."""
    for path in sorted((model.places.root / "candidates").glob("[!.]*.json")):
        try:
            yield _read_journal(path, model)
        except FileNotFoundError:  # another namespace's rollout has just ended
            continue
        except CorruptRecordError as error:
            if path == _journal(model):
                raise
            log.warning("%s is damaged, so that the server is not told of its version: see that model's status", path)
            log.debug("%s", error)


def _read_journal(path: Path, model: ServingModel) -> Candidate:
    remedy = f"remove it, run {model.command('reconcile')}, and publish the version under test again"
    record = read_json(path, remedy)
    name, base_path, version = record.get("model"), record.get("base_path"), record.get("version")
    if not (name == path.stem and isinstance(base_path, str) and type(version) is int and version > 0):
        msg = f"{path}: expected model {path.stem}, base_path and version, received {record!r:.200}; {remedy}"
        raise CorruptRecordError(msg)
    run_id, sha256 = (str(record.get(each, "")) for each in ("run_id", "saved_model_sha256"))
    return Candidate(path.stem, Path(base_path), version, run_id, sha256)
