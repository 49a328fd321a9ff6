"""What planes that do not serve learn from the serving plane's folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from feature_repo.contracts.places import Serving
from feature_repo.contracts.publishing import tree_sha256
from feature_repo.contracts.served_models import WARMUP_FILE, served_sha256, served_versions
from tests.releases import ranker_part, release_of, with_ranker

if TYPE_CHECKING:
    from pathlib import Path

RELEASE = release_of("toy", ranker_part("2", run_id="run-2"))


def test_numbers_are_those_of_folders_and_releases_with_the_run_that_has_them_now(tmp_path: Path) -> None:
    serving = Serving(tmp_path)
    assert served_versions(serving, "toy", "ranking") == {}
    for name in ("3", "11", ".4.withdrawn", "notes"):
        (serving.model("toy", "ranking") / name).mkdir(parents=True)
    releases = serving.releases("toy")
    for version, run_id in (("2", "run-2"), ("3", "run-3"), ("5", "run-5")):
        with_ranker(RELEASE, version=version, run_id=run_id).write(releases / f"v{version}.json")
    with_ranker(RELEASE, version="5", run_id="another").write(serving.canary_release("toy", "ranking"))
    (releases / "v9.json").write_text("{")
    (releases / "comparison-v8.json").write_text("{}")
    found = served_versions(serving, "toy", "ranking")
    assert found == {2: "run-2", 3: "run-3", 5: "another", 11: ""}


@pytest.mark.parametrize("registered_with", [False, True])
def test_a_warm_up_file_counts_only_if_it_was_registered(tmp_path: Path, registered_with: bool) -> None:  # noqa: FBT001 - a parameter
    (tmp_path / "saved_model.pb").write_bytes(b"graph")
    expected = tree_sha256(tmp_path)
    (tmp_path / WARMUP_FILE).parent.mkdir()
    (tmp_path / WARMUP_FILE).write_bytes(b"requests")
    if registered_with:
        expected = tree_sha256(tmp_path)
    assert served_sha256(tmp_path, expected) == expected
    (tmp_path / "saved_model.pb").write_bytes(b"another")
    assert served_sha256(tmp_path, expected) != expected
