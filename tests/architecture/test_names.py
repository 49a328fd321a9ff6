"""The planes' plain package names resolve to this repository, whatever else is installed."""

import importlib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PLANES = ("feature_repo", "pipelines", "models", "serving", "dags", "infra")


@pytest.mark.parametrize("name", PLANES)
def test_package_is_this_repositorys(name):
    module = importlib.import_module(name)
    assert Path(module.__file__).parent == REPOSITORY / name


def test_top_level_is_as_given():
    visible = {path.name for path in REPOSITORY.iterdir() if not path.name.startswith(".")}
    assert {"README.md", "dags", "pipelines", "feature_repo", "models", "serving", "infra", "tests"} <= visible
