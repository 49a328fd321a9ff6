"""Every command line says in one sentence what is wrong with a namespace, version, run key or id: exit code 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import typer
from typer.testing import CliRunner

import models.__main__ as models_commands
import pipelines.__main__ as pipelines_commands
import pipelines.feast_store.__main__ as feast_commands
import serving.lists.__main__ as lists_commands
import serving.rollout.__main__ as rollout_commands

if TYPE_CHECKING:
    from collections.abc import Iterator

BAD_NAMESPACES = ("No Such", "../etc", "a_b", "x" * 49, "-", "")
APPS = {
    "models": models_commands.app,
    "pipelines": pipelines_commands.app,
    "serving.lists": lists_commands.app,
    "serving.rollout": rollout_commands.app,
}


def commands() -> Iterator[tuple[str, str]]:
    """Yield module and name of every command that takes a namespace."""
    for module, app in APPS.items():
        group = typer.main.get_group(app)
        for name, command in group.commands.items():
            if any("--namespace" in parameter.opts for parameter in command.params):
                yield module, name


def refusal(app: typer.Typer, *arguments: str) -> str:
    """Return what a command that has to end with the usage exit code says, on one line."""
    result = CliRunner(env={"COLUMNS": "300"}).invoke(app, list(arguments))
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def test_every_plane_has_such_commands() -> None:
    assert {module for module, _ in commands()} == APPS.keys()


@pytest.mark.parametrize("namespace", BAD_NAMESPACES)
@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_a_bad_namespace_is_a_usage_error(command: tuple[str, str], namespace: str) -> None:
    module, name = command
    said = refusal(APPS[module], name, "--namespace", namespace)
    assert f"namespace {namespace!r}: expected up to 48 lower case letters" in said


def test_the_feast_environment_refuses_one_too() -> None:
    app = typer.Typer()
    app.command()(feast_commands.main)
    assert "namespace 'No Such': expected" in refusal(app, "--namespace", "No Such")


@pytest.mark.parametrize("version", ["three", "0", "-1", "1.0", ""])
def test_a_bad_version_is_a_usage_error(version: str) -> None:
    app = APPS["serving.rollout"]
    assert "expected a number of the registry" in refusal(app, "verdict", "--namespace", "ns", f"--version={version}")
    assert "expected a number of the registry" in refusal(app, "rollback", "--namespace", "ns", f"--to={version}")


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (("--part", "words", "--with", "words=2"), "part words: expected one version, received 1 and 2"),
        (("--with", "ranking=1"), "part ranking: expected one version, received 1 and 1"),
        (("--with", "quotas=1", "--with", "quotas=2"), "part quotas: expected one version, received 1 and 2"),
        (("--with", "quotas"), "part 'quotas': expected its name and its version, such as user-tower=3"),
        (("--with", "quotas="), "expected a number of the registry"),
    ],
)
def test_a_promotion_names_each_part_once_with_its_version(named: tuple[str, ...], said: str) -> None:
    assert said in refusal(APPS["serving.rollout"], "promote", "--namespace", "ns", "--version", "1", *named)


@pytest.mark.parametrize("run_id", ["a b/../", "0" * 31, "G" * 32, f"{0:032}\n"])
def test_a_run_id_is_one_of_mlflow(run_id: str) -> None:
    arguments = ("publish-file", "--namespace", "ns", "--part", "words", "--kind", "vocabulary", "--file", "words.txt")
    assert f"run id {run_id!r}: expected the 32 hex" in refusal(
        APPS["serving.rollout"], *arguments, f"--run-id={run_id}"
    )


@pytest.mark.parametrize("reason", ["", " \t"])
def test_a_promotion_despite_the_champion_needs_a_reason(reason: str) -> None:
    arguments = ("promote", "--namespace", "ns", "--version", "3", f"--despite-champion={reason}")
    assert "expected a text for whoever asks later" in refusal(APPS["serving.rollout"], *arguments)


def test_a_bad_run_key_or_training_set_is_a_usage_error() -> None:
    arguments = ("evaluate", "--namespace", "ns")
    app = APPS["models"]
    assert "run key '../x': expected" in refusal(app, *arguments, "--training-set", "ts-1", "--run-key", "../x")
    assert "id '../x': expected" in refusal(app, *arguments, "--training-set", "../x", "--run-key", "key")


def test_bad_questions_and_models_are_usage_errors() -> None:
    app, of = APPS["serving.lists"], ("--namespace", "ns", "--questions")
    assert "id '../x': expected" in refusal(app, "candidates", *of, "../x")
    assert "id '../x': expected" in refusal(app, "compare", *of, "../x", "--models", "[]", "--out", "o")
    assert "models: expected a list such as" in refusal(app, "compare", *of, "q", "--models", "{}", "--out", "o")


@pytest.mark.parametrize(
    "options", [["--kind", "lists"], ["--candidates", "c-1"], ["--kind", "retrieval", "--candidates", "c-1"]]
)
def test_candidates_come_with_lists_and_with_nothing_else(options):
    arguments = ["training-set", "--namespace", "ml-100k", "--cutoff", "1998-04-23", *options]
    said = refusal(pipelines_commands.app, *arguments)
    assert "expected --candidates ID with --kind lists, and with no other kind; received --kind" in said


def test_an_id_of_candidates_is_no_path():
    arguments = ["training-set", "--namespace", "ml-100k", "--cutoff", "1998-04-23", "--kind", "lists"]
    assert "id '../x': expected" in refusal(pipelines_commands.app, *arguments, "--candidates", "../x")
