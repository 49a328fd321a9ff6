"""The SavedModels that the recorded requests call, and what starts servers."""

from __future__ import annotations

import sys
from subprocess import run
from typing import TYPE_CHECKING

import pytest

from tests.conformance.server_process import Launcher
from tests.serving_world import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def recorded_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build them in a process of their own: TensorFlow's sessions leave state behind."""
    folder = tmp_path_factory.mktemp("recorded-models")
    run(
        [sys.executable, "-m", "tests.conformance.recorded_models", str(folder)],
        check=True,
        cwd=REPOSITORY,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher() as started:
        yield started
