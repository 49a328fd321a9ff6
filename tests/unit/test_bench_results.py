"""What a benchmark records: whole, finite, each figure once, and only if it ran as it usually does."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from infra.bench import results
from infra.bench.results import Figure, record_results, write_results

if TYPE_CHECKING:
    from pathlib import Path

LATENCY = Figure("p50 of gRPC one_user, 100 rows", 2.5, "ms", "lower")
RATIO = Figure("p50 of gRPC over in process", 1.5, "ratio", "lower", 1.6, hard=True, spread=0.1)


def test_a_record_says_what_was_measured_where_and_when(tmp_path: Path) -> None:
    before = datetime.now(UTC).date().isoformat()
    path = write_results("serving", [LATENCY, RATIO], tmp_path)
    assert path == tmp_path / "serving.json"
    record = json.loads(path.read_text())
    assert record["figures"] == [
        {
            "name": "p50 of gRPC one_user, 100 rows",
            "value": 2.5,
            "unit": "ms",
            "target": None,
            "hard": False,
            "better": "lower",
            "spread": None,
        },
        {
            "name": "p50 of gRPC over in process",
            "value": 1.5,
            "unit": "ratio",
            "target": 1.6,
            "hard": True,
            "better": "lower",
            "spread": 0.1,
        },
    ]
    assert set(record) == {"figures", "commit", "date", "machine"}
    assert before <= record["date"] <= datetime.now(UTC).date().isoformat()
    assert record["machine"] == results.machine()


def test_figures_stay_in_their_order(tmp_path: Path) -> None:
    names = ["b", "c", "a"]
    path = write_results("data", [replace(LATENCY, name=name) for name in names], tmp_path)
    assert [figure["name"] for figure in json.loads(path.read_text())["figures"]] == names


def test_what_was_not_measured_has_no_value(tmp_path: Path) -> None:
    path = write_results("data", [replace(LATENCY, value=None)], tmp_path)
    assert json.loads(path.read_text())["figures"][0]["value"] is None


@pytest.mark.parametrize("key", ["value", "target", "spread"])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_no_number_is_nan_or_infinite(tmp_path: Path, key: str, number: float) -> None:
    fault = f"'p50 of gRPC one_user, 100 rows': expected a finite {key}, received {number}"
    with pytest.raises(ValueError, match=fault):
        write_results("serving", [RATIO, replace(LATENCY, **{key: number})], tmp_path)
    assert not list(tmp_path.iterdir())


def test_two_figures_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"serving: .* received two or more of \['p50 of gRPC one_user, 100 rows'\]"):
        write_results("serving", [LATENCY, RATIO, replace(LATENCY, value=3.0)], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("head", "changes", "commit"),
    [
        ("034131c", "", "034131c"),
        ("034131c", "M README.md", "034131c+changes"),
        (None, None, "unknown"),
    ],
)
def test_the_commit_is_named_with_what_was_changed_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str | None, changes: str | None, commit: str
) -> None:
    monkeypatch.setattr(results, "_git", lambda command, *_: {"rev-parse": head, "status": changes}[command])
    assert json.loads(write_results("data", [LATENCY], tmp_path).read_text())["commit"] == commit


def test_outside_git_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "REPOSITORY", tmp_path)
    monkeypatch.setattr(results, "_RESULTS", tmp_path / "results")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert results._commit() == "unknown"
    monkeypatch.setenv("PATH", "")
    assert results._commit() == "unknown"


@pytest.mark.parametrize(
    ("arguments", "environment", "printed"),
    [
        ([], {"KESTREL_ARG_NAMESPACE": ""}, None),
        (["--folder", "elsewhere"], {}, None),
        (["--repeats", "20"], {}, "not written, because of the options given: repeats"),
        (["--sizes", "3", "--repeats", "20"], {}, "options given: repeats, sizes"),
        ([], {"KESTREL_ARG_NAMESPACE": "films"}, "options given: namespace"),
    ],
)
def test_a_run_with_options_leaves_the_record_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    environment: dict[str, str],
    printed: str | None,
) -> None:
    written = []

    def write(name: str, figures: object) -> Path:
        written.append((name, figures))
        return results.REPOSITORY / "docs" / "results" / f"{name}.json"

    monkeypatch.setattr(results, "write_results", write)
    app = typer.Typer()

    @app.command()
    def measure(
        context: typer.Context,
        *,
        namespace: Annotated[str, typer.Option(envvar="KESTREL_ARG_NAMESPACE")] = "",
        sizes: Annotated[list[int] | None, typer.Option()] = None,
        repeats: Annotated[int, typer.Option()] = 400,
        folder: Annotated[str, typer.Option()] = "",
    ) -> None:
        record_results(context, "serving", [LATENCY], Console(), harmless=["folder"])

    done = CliRunner().invoke(app, arguments, env=environment, catch_exceptions=False)
    assert done.exit_code == 0
    assert (printed or "Written: docs/results/serving.json") in done.output
    assert written == ([] if printed else [("serving", [LATENCY])])
