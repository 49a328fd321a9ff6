"""`python -m serving.rollout <command>`: from the registry to the model server, and back."""

from __future__ import annotations

import re
from pathlib import Path  # noqa: TC003 - typer asks for it
from typing import TYPE_CHECKING, Annotated

import typer

from feature_repo.contracts.intervals import check_part
from feature_repo.contracts.isolation import keep_out
from feature_repo.contracts.jobs import COMMAND_LINE, run_job
from feature_repo.contracts.manifests import FILE_KINDS, PartKind
from feature_repo.contracts.signatures import RANKING_MODEL
from feature_repo.options import NamespaceName, checked
from serving.rollout.serving_model import version_number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from serving.rollout.serving_model import ServingModel

_FILE_KINDS = ", ".join(sorted(map(str, FILE_KINDS)))


def _file_kind(kind: str) -> PartKind:
    if kind not in FILE_KINDS:
        msg = f"kind {kind!r}: expected {_FILE_KINDS}"
        raise ValueError(msg)
    return PartKind(kind)


def _part_version(text: str) -> str:
    name, separator, number = text.partition("=")
    if not separator:
        msg = f"part {text[:80]!r}: expected its name and its version, such as user-tower=3"
        raise ValueError(msg)
    return f"{check_part(name)}={version_number(number)}"


def _others(part: str, version: int, others: Sequence[str]) -> dict[str, int]:
    """Return name → version of what comes into force beside a part; each part has one version."""
    found = {part: version}
    for name, _, number in (each.partition("=") for each in others):
        if name in found:
            msg = f"part {name}: expected one version, received {found[name]} and {number}; name each part once"
            raise typer.BadParameter(msg, param_hint="'--with'")
        found[name] = int(number)
    return {name: number for name, number in found.items() if name != part}


def _run_id(text: str) -> str:
    if text and not re.fullmatch("[0-9a-f]{32}", text):
        msg = f"run id {text[:80]!r}: expected the 32 hex digits that MLflow's page of the run shows, or none"
        raise ValueError(msg)
    return text


def _stated(reason: str) -> str:
    if not reason.strip():
        msg = "expected a text for whoever asks later, received a blank one"
        raise ValueError(msg)
    return reason.strip()


app = typer.Typer(no_args_is_help=True, **COMMAND_LINE)

Version = Annotated[
    int, typer.Option(parser=checked(version_number), metavar="NUMBER", help="The registry's version, such as 3.")
]
PartName = Annotated[
    str,
    typer.Option(
        "--part", parser=checked(check_part), metavar="NAME", help="The part of the release that it is about."
    ),
]
Key = Annotated[str, typer.Option(help="Names this one wish, so that a retry is not taken for another.")]


@app.callback()
def commands() -> None:
    """Move models from the registry to the model server, and back."""


@app.command()
def verdict(namespace: NamespaceName, version: Version, part: PartName = RANKING_MODEL) -> None:
    """End well if the gates let the version through, and with their reason if not."""
    from serving.rollout import verdict as step  # noqa: PLC0415 - quick help

    _run(namespace, version, part, step.verdict)


@app.command()
def approve(
    namespace: NamespaceName,
    version: Version,
    name: Annotated[str, typer.Option(parser=checked(_stated), metavar="WHO", help="Who approves.")],
    reason: Annotated[str, typer.Option(parser=checked(_stated), metavar="WHY", help="Why, for whoever asks later.")],
    part: PartName = RANKING_MODEL,
) -> None:
    """Let a version through that the gates have put on hold; then trigger model_rollout."""
    from serving.rollout import approve as step  # noqa: PLC0415 - quick help

    _run(namespace, version, part, lambda model, number: step.approve(model, number, name, reason))


@app.command()
def publish(namespace: NamespaceName, version: Version, part: PartName = RANKING_MODEL) -> None:
    """Bring a version from the registry to the model server, beside the one that serves."""
    from serving.rollout import publish as step  # noqa: PLC0415 - quick help

    _run(namespace, version, part, step.publish)


@app.command(name="publish-file")
def publish_file(
    namespace: NamespaceName,
    part: Annotated[str, typer.Option(parser=checked(check_part), metavar="NAME", help="What it is in a release.")],
    kind: Annotated[PartKind, typer.Option(parser=checked(_file_kind), metavar="KIND", help=_FILE_KINDS)],
    file: Annotated[Path, typer.Option(help="The file; its name stays.")],
    run_id: Annotated[
        str, typer.Option(parser=checked(_run_id), metavar="ID", help="The MLflow run that made it.")
    ] = "",
) -> None:
    """Make a file the next version of a part, or find the version that it is; `promote` brings it into force."""
    from serving.rollout import publish as step  # noqa: PLC0415 - quick help

    run_job(lambda: step.publish_part_file(_model(namespace, part), file, kind, run_id))


@app.command()
def replay(namespace: NamespaceName, version: Version, part: PartName = RANKING_MODEL) -> None:
    """Compare the new version's scores with the evaluation's; withdraw it if they differ."""
    from serving.rollout import replay as step  # noqa: PLC0415 - quick help

    _run(namespace, version, part, step.replay)


@app.command()
def canary(namespace: NamespaceName, version: Version, part: PartName = RANKING_MODEL) -> None:
    """Label the version `canary`; the recommender sends it a share of its requests as well."""
    from serving.rollout import canary as step  # noqa: PLC0415 - quick help

    _run(namespace, version, part, step.canary)


@app.command()
def compare(namespace: NamespaceName, version: Version, part: PartName = RANKING_MODEL) -> None:
    """Compare the canary with the stable version on recorded requests; withdraw it if it fails or is too slow."""
    from serving.rollout import compare as step  # noqa: PLC0415 - quick help

    _run(namespace, version, part, step.compare)


@app.command()
def withdraw(namespace: NamespaceName, version: Version, part: PartName = RANKING_MODEL) -> None:
    """Take a version under test from the server and from the disk."""
    from serving.rollout import canary as step  # noqa: PLC0415 - quick help

    _run(namespace, version, part, step.withdraw)


@app.command()
def promote(  # noqa: PLR0917 - options
    namespace: NamespaceName,
    version: Version,
    part: PartName = RANKING_MODEL,
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            parser=checked(_part_version),
            metavar="NAME=NUMBER",
            help="Another part that comes into force in the same switch, and its version; may be given several times.",
        ),
    ] = None,
    key: Key = "",
    despite_champion: Annotated[
        str | None,
        typer.Option(
            parser=checked(_stated),
            metavar="REASON",
            help="Promote it although the gates compared it with another champion; why, for whoever asks later.",
        ),
    ] = None,
) -> None:
    """Make the version the one that users get; every other part stays what it is."""
    from serving.rollout import promote as step  # noqa: PLC0415 - quick help

    also = _others(part, version, others or [])
    _run(namespace, version, part, lambda model, number: step.promote(model, number, key, despite_champion or "", also))


@app.command()
def rollback(
    namespace: NamespaceName,
    to: Annotated[
        int | None,
        typer.Option(
            parser=checked(version_number),
            metavar="NUMBER",
            help="The latest release with this version of the part; without it, the release before.",
        ),
    ] = None,
    part: PartName = RANKING_MODEL,
    reason: Annotated[str, typer.Option(help="Why, for whoever asks later.")] = "",
    key: Key = "",
) -> None:
    """Go back to the release before, or to an earlier one, with all its parts."""
    from serving.rollout import rollback as step  # noqa: PLC0415 - quick help

    run_job(lambda: step.rollback(_model(namespace, part), to, reason, key))


@app.command()
def reconcile(namespace: NamespaceName) -> None:
    """Finish or undo what was cut off, and make everybody agree with the release in force."""
    from serving.rollout import reconcile as step  # noqa: PLC0415 - quick help

    run_job(lambda: step.reconcile(_model(namespace)))


@app.command()
def status(namespace: NamespaceName) -> None:
    """Tell what is served, since when and why, and whether everybody agrees."""
    from serving.rollout import status as step  # noqa: PLC0415 - quick help

    run_job(lambda: step.status(_model(namespace)))


def _run(namespace: str, version: int, part: str, step: Callable[[ServingModel, int], dict[str, object]]) -> None:
    run_job(lambda: step(_model(namespace, part), version))


def _model(namespace: str, part: str = RANKING_MODEL) -> ServingModel:
    from serving.protocol.client import PredictClient  # noqa: PLC0415 - quick help
    from serving.protocol.replicas import Replicas  # noqa: PLC0415 - quick help
    from serving.rollout.registry import Registry  # noqa: PLC0415 - quick help
    from serving.rollout.serving_model import ServingModel  # noqa: PLC0415 - quick help
    from serving.rollout.settings import load_settings  # noqa: PLC0415 - quick help

    settings = load_settings()
    return ServingModel(
        namespace,
        settings,
        Registry(settings.mlflow_uri),
        Replicas(settings.model_server_grpc, timeout_s=settings.rollout_call_seconds),
        PredictClient(settings.model_server_grpc, timeout_s=settings.rollout_call_seconds),
        part,
    )


if __name__ == "__main__":
    keep_out("feast")
    app()
