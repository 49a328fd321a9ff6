"""models.config is shared: a rollout changes its own model's entry and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from feature_repo.contracts.publishing import CorruptRecordError
from serving.rollout.errors import UnknownVersionError
from serving.rollout.models_config import (
    add_version,
    configured_versions,
    drop_versions,
    keep_loadable,
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


def lay_down(folder: Path, *without: str) -> None:
    """Make a version's folder of empty files, without some of them."""
    for name in ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"):
        if name not in without:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()


@pytest.mark.parametrize(
    "without", ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"]
)
def test_what_would_not_load_is_left_out_of_every_model(tmp_path: Path, without: str) -> None:
    config = read_models_config(tmp_path / "models.config")
    for name in ("mine", "other", "gone"):
        set_model(config, f"{name}.ranking", tmp_path / name, [1, 2], {"stable": 2, "previous": 1})
    for version in ("1", "2"):
        lay_down(tmp_path / "mine" / version)
    lay_down(tmp_path / "other" / "1")
    lay_down(tmp_path / "other" / "2", without)
    config.model_config_list.config.add(name="bucket", base_path="gs://models/bucket", model_platform="tensorflow")
    keep_loadable(config)
    assert [entry.name for entry in config.model_config_list.config] == ["mine.ranking", "other.ranking", "bucket"]
    assert labels(config, "mine.ranking") == {"stable": 2, "previous": 1}
    assert (configured_versions(config, "other.ranking"), labels(config, "other.ranking")) == ({1}, {"previous": 1})


def test_a_model_leaves_with_its_last_version(tmp_path: Path) -> None:
    config = read_models_config(tmp_path / "models.config")
    set_model(config, "mine.ranking", tmp_path, [1, 2], {"stable": 2})
    drop_versions(config, "mine.ranking", [2])
    assert (configured_versions(config, "mine.ranking"), labels(config, "mine.ranking")) == ({1}, {})
    drop_versions(config, "mine.ranking", [1])
    drop_versions(config, "mine.ranking", [1])
    assert not config.model_config_list.config


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text("model_config_list { config { name: ")
    with pytest.raises(CorruptRecordError, match=r"models\.config: expected a ModelServerConfig"):
        read_models_config(path)


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "three", "²", "2147483648", "1" + "0" * 20, "9" * 5000])
def test_versions_are_numbers(text: str) -> None:
    with pytest.raises(UnknownVersionError, match="expected a number of the registry"):
        version_number(text)
