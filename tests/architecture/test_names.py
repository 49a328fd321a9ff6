"""The planes' plain package names resolve to this repository, whatever else is installed."""

import ast
import importlib
from itertools import pairwise
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


def bare_ids(tree):
    """The f-strings in which what follows `/recommend/`, `/similar/` or `/dagRuns/` is not made by `path_part`."""
    for text in (node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)):
        for before, value in pairwise(text.values):
            asks = isinstance(before, ast.Constant) and before.value.endswith(("/recommend/", "/similar/", "/dagRuns/"))
            if asks and not (isinstance(value.value, ast.Call) and value.value.func.id == "path_part"):
                yield ast.unparse(text)


def test_ids_in_paths_of_urls_are_escaped():
    """An id may hold whatever parts a URL."""
    assert list(bare_ids(ast.parse('f"{uri}/recommend/{user}?k=1"'))) == ["f'{uri}/recommend/{user}?k=1'"]
    sources = [path for plane in PLANES for path in (REPOSITORY / plane).rglob("*.py")]
    assert {path: found for path in sources if (found := list(bare_ids(ast.parse(path.read_text()))))} == {}
