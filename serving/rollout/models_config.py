"""models.config: what the model server serves after a restart, promoted versions and canaries of all namespaces."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf import text_format

from feature_repo.contracts.publishing import CorruptRecordError, replacing
from serving.protocol.messages import ModelServerConfig
from serving.rollout.saved_models import lacking

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

log = logging.getLogger(__name__)

PLATFORM = "tensorflow"
STABLE, PREVIOUS, CANARY = "stable", "previous", "canary"
_HEADER = "# What the model server serves. Written by `python -m serving.rollout`: promoted versions and canaries.\n"


def read_models_config(path: Path) -> Any:  # noqa: ANN401 - a message class made at run time
    """Return the ModelServerConfig in `path`; an empty list of models if there is no file yet.

    Raises:
        CorruptRecordError: It is no configuration.
    """
    config = ModelServerConfig()
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), config)
    except FileNotFoundError:
        pass
    except (text_format.ParseError, UnicodeDecodeError) as error:
        msg = (
            f"{path}: expected a ModelServerConfig in protobuf text format, received {error}; remove it, and run "
            "`python -m serving.rollout reconcile` for every namespace that serves"
        )
        raise CorruptRecordError(msg) from error
    config.model_config_list.SetInParent()
    return config


def write_models_config(path: Path, config: Any) -> None:  # noqa: ANN401 - a message class made at run time
    """Write a configuration, whole or not at all."""
    with replacing(path) as part:
        part.write_text(_HEADER + text_format.MessageToString(config), encoding="utf-8")


def set_model(
    config: Any,  # noqa: ANN401 - a message class made at run time
    name: str,
    base_path: Path,
    versions: Collection[int],
    labels: Mapping[str, int],
) -> None:
    """Make `config` serve exactly `versions` of the model, and leave every other model alone."""
    entry = model_entry(config, name)
    if entry is None:
        entry = config.model_config_list.config.add(name=name)
    entry.base_path = str(base_path)
    entry.model_platform = PLATFORM
    specific = entry.model_version_policy.specific
    del specific.versions[:]
    specific.versions.extend(sorted(set(versions)))
    entry.version_labels.clear()
    for label, version in sorted(labels.items()):
        entry.version_labels[label] = version


def set_promoted(
    config: Any,  # noqa: ANN401 - a message class made at run time
    name: str,
    base_path: Path,
    labels: Mapping[str, int],
) -> None:
    """Make `config` serve the versions of `labels`, and a canary that is none of them; nothing at all takes it out."""
    canary = canary_version(config, name)
    wanted = dict(labels)
    if canary is not None and canary not in labels.values():
        wanted[CANARY] = canary
    if wanted:
        set_model(config, name, base_path, wanted.values(), wanted)
    else:
        remove_model(config, name)


def set_canary(
    config: Any,  # noqa: ANN401 - a message class made at run time
    name: str,
    base_path: Path,
    version: int | None,
) -> None:
    """Give the label `canary` to `version`, beside whatever is promoted; None takes canary and label away."""
    labels = {label: number for label, number in labels_of(config, name).items() if label != CANARY}
    versions = set(promoted_versions(config, name))
    if version is not None:
        labels[CANARY] = version
        versions.add(version)
    if versions:
        set_model(config, name, base_path, versions, labels)
    else:
        remove_model(config, name)


def add_version(config: Any, name: str, base_path: Path, version: int) -> None:  # noqa: ANN401 - see above
    """Make `config` serve `version` beside whatever it serves of the model."""
    set_model(config, name, base_path, {*configured_versions(config, name), version}, labels_of(config, name))


def keep_loadable(config: Any) -> None:  # noqa: ANN401 - see above
    """Take the versions out of `config`, of every model, whose folders lack what a server needs; the log names them.

    One model without a version that loads keeps the real server from starting with any, and a reload from ending.
    """
    for entry in list(config.model_config_list.config):
        if "://" in entry.base_path:  # not on a disk that one could look at
            continue
        found = {version: lacking(Path(entry.base_path) / str(version)) for version in _versions(entry)}
        for version, fault in found.items():
            if fault:
                log.warning("%s version %d is left out, for it would not load: %s", entry.name, version, fault)
        drop_versions(config, entry.name, [version for version, fault in found.items() if fault])


def drop_versions(config: Any, name: str, versions: Collection[int]) -> None:  # noqa: ANN401 - see above
    """Take versions out of a model's entry, with their labels; the last one takes the entry along."""
    entry = model_entry(config, name)
    if entry is None or not versions:
        return
    left = set(_versions(entry)) - set(versions)
    labels = {label: version for label, version in entry.version_labels.items() if version in left}
    if left:
        set_model(config, name, Path(entry.base_path), left, labels)
    else:
        remove_model(config, name)


def model_entry(config: Any, name: str) -> Any | None:  # noqa: ANN401 - see above
    """Return a model's entry, None if there is none."""
    return next((entry for entry in config.model_config_list.config if entry.name == name), None)


def labels_of(config: Any, name: str) -> dict[str, int]:  # noqa: ANN401 - see above
    """Return label → version of a model."""
    entry = model_entry(config, name)
    return dict(entry.version_labels) if entry is not None else {}


def configured_versions(config: Any, name: str) -> frozenset[int]:  # noqa: ANN401 - see above
    """Return every version that `config` names for a model."""
    entry = model_entry(config, name)
    return frozenset(_versions(entry)) if entry is not None else frozenset()


def configured_parts(config: Any, namespace: str) -> list[str]:  # noqa: ANN401 - see above
    """Return the names of the parts of a namespace that `config` names."""
    found = (entry.name.partition(".") for entry in config.model_config_list.config)
    return [part for own, _, part in found if own == namespace]


def canary_version(config: Any, name: str) -> int | None:  # noqa: ANN401 - see above
    """Return the version that bears the label `canary`, None if there is none."""
    return labels_of(config, name).get(CANARY)


def promoted_versions(config: Any, name: str) -> frozenset[int]:  # noqa: ANN401 - see above
    """Return the versions that `config` names for a model, without one that is there as a canary alone."""
    labels = labels_of(config, name)
    canary = labels.pop(CANARY, None)
    alone = {canary} - set(labels.values())
    return configured_versions(config, name) - alone


def remove_model(config: Any, name: str) -> None:  # noqa: ANN401 - see above
    """Make `config` serve nothing of a model."""
    entry = model_entry(config, name)
    if entry is not None:
        config.model_config_list.config.remove(entry)


def _versions(entry: Any) -> list[int]:  # noqa: ANN401 - see above
    return list(entry.model_version_policy.specific.versions)
