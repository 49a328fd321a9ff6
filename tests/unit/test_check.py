"""`make check`: which modules a file stands for, which of them a change can reach, and in which order."""

from __future__ import annotations

import pytest

from feature_repo.contracts.places import REPOSITORY
from infra.local.check import distances, modules_of, reached

MODULES = {"models", "models.specs", "models.specs.spec", "models.specs.other", "serving.app"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["models/specs/spec.py"], {"models.specs.spec"}),
        (["models/specs/__init__.py"], {"models.specs"}),
        (["models/specs/ranking.yaml"], {"models.specs.spec", "models.specs.other"}),
        (["docs/quality.md", "gone/module.py"], set()),
    ],
)
def test_a_file_stands_for_its_module_and_data_for_the_modules_beside_it(files, expected):
    assert modules_of(files, MODULES) == expected


def test_a_change_reaches_whatever_imports_it_and_the_nearest_counts():
    importers = {"a": ["b", "c"], "b": ["d"], "c": ["d", "a"], "d": [], "e": ["a"]}
    assert distances({"a"}, importers) == {"a": 0, "b": 1, "c": 1, "d": 2}
    assert distances({"a", "d"}, importers)["d"] == 0
    assert distances(set(), importers) == {}


def test_the_tests_of_a_changed_module_come_first_and_tests_that_start_something_never():
    files = reached(["infra/local/check.py"])
    assert files[0] == "tests/unit/test_check.py"
    wide = reached(["feature_repo/list_metrics.py"])
    assert "tests/unit/test_list_metrics.py" in wide[:4]
    assert all(path.startswith("tests/") and "integration" not in path and "e2e" not in path for path in wide)
    assert all((REPOSITORY / path).is_file() for path in wide)


def test_a_test_that_changed_is_run_and_the_lock_reaches_all():
    assert reached(["tests/unit/test_check.py"]) == ["tests/unit/test_check.py"]
    everything = reached(["uv.lock"])
    assert len(everything) > len(reached(["feature_repo/list_metrics.py"]))
    assert "tests/architecture/test_lint.py" not in everything, "make check does what it does"
    assert reached(["README.md"]) == []
