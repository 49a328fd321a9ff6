"""models.config is shared: a rollout changes its own model's entry and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from feature_repo.contracts.publishing import CorruptRecordError
from serving.rollout.errors import UnknownVersionError
from serving.rollout.models_config import (
    add_version,
    drop_version,
    model_entry,
    promoted_versions,
    read_models_config,
    set_model,
    write_models_config,
)
from serving.rollout.serving_model import version_number

if TYPE_CHECKING:
    from pathlib import Path


def labels(config: Any, name: str) -> dict[str, int]:
    entry = model_entry(config, name)
    assert entry is not None
    return dict(entry.version_labels)


def test_a_missing_file_is_an_empty_configuration(tmp_path: Path) -> None:
    config = read_models_config(tmp_path / "models.config")
    assert config.WhichOneof("config") == "model_config_list"
    assert not config.model_config_list.config


def test_what_is_written_is_read_and_other_models_stay(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    config = read_models_config(path)
    set_model(config, "other.ranking", tmp_path / "other", [7], {"stable": 7})
    set_model(config, "mine.ranking", tmp_path / "mine", [1], {"stable": 1})
    write_models_config(path, config)
    again = read_models_config(path)
    set_model(again, "mine.ranking", tmp_path / "mine", [2, 1], {"stable": 2, "previous": 1})
    write_models_config(path, again)
    final = read_models_config(path)
    assert promoted_versions(final, "other.ranking") == {7}
    assert promoted_versions(final, "mine.ranking") == {1, 2}
    assert labels(final, "mine.ranking") == {"stable": 2, "previous": 1}


def test_a_candidate_joins_without_touching_labels(tmp_path: Path) -> None:
    config = read_models_config(tmp_path / "models.config")
    set_model(config, "mine.ranking", tmp_path, [1], {"stable": 1})
    add_version(config, "mine.ranking", tmp_path, 2)
    assert promoted_versions(config, "mine.ranking") == {1, 2}
    assert labels(config, "mine.ranking") == {"stable": 1}


def test_a_version_that_is_dropped_leaves_with_its_labels(tmp_path: Path) -> None:
    config = read_models_config(tmp_path / "models.config")
    set_model(config, "other.ranking", tmp_path / "other", [2], {"stable": 2})
    set_model(config, "mine.ranking", tmp_path, [1, 2], {"stable": 2, "previous": 1, "canary": 2})
    drop_version(config, "mine.ranking", tmp_path, 2)
    assert promoted_versions(config, "mine.ranking") == {1}
    assert labels(config, "mine.ranking") == {"previous": 1}
    drop_version(config, "mine.ranking", tmp_path, 1)
    assert model_entry(config, "mine.ranking") is None, "a server refuses a model without versions"
    assert labels(config, "other.ranking") == {"stable": 2}


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text("model_config_list { config { name: ")
    with pytest.raises(CorruptRecordError, match=r"models\.config: expected a ModelServerConfig"):
        read_models_config(path)


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "three", "²"])
def test_versions_are_numbers(text: str) -> None:
    with pytest.raises(UnknownVersionError, match="expected a number of the registry"):
        version_number(text)
