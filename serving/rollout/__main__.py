"""`python -m serving.rollout <command>`: from the registry to the model server, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from feature_repo.contracts.isolation import keep_out
from feature_repo.contracts.jobs import COMMAND_LINE, run_job
from feature_repo.options import NamespaceName, checked
from serving.rollout.serving_model import version_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from serving.rollout.serving_model import ServingModel


def _stated(reason: str) -> str:
    if not reason.strip():
        msg = "expected a text for whoever asks later, received a blank one"
        raise ValueError(msg)
    return reason.strip()


app = typer.Typer(no_args_is_help=True, **COMMAND_LINE)

Version = Annotated[
    int, typer.Option(parser=checked(version_number), metavar="NUMBER", help="The registry's version, such as 3.")
]
Key = Annotated[str, typer.Option(help="Names this one wish, so that a retry is not taken for another.")]


@app.callback()
def commands() -> None:
    """Move models from the registry to the model server, and back."""


@app.command()
def verdict(namespace: NamespaceName, version: Version) -> None:
    """End well if the gates let the version through, and with their reason if not."""
    from serving.rollout import verdict as step  # noqa: PLC0415 - quick help

    _run(namespace, version, step.verdict)


@app.command()
def approve(
    namespace: NamespaceName,
    version: Version,
    name: Annotated[str, typer.Option(parser=checked(_stated), metavar="WHO", help="Who approves.")],
    reason: Annotated[str, typer.Option(parser=checked(_stated), metavar="WHY", help="Why, for whoever asks later.")],
) -> None:
    """Let a version through that the gates have put on hold; then trigger model_rollout."""
    from serving.rollout import approve as step  # noqa: PLC0415 - quick help

    _run(namespace, version, lambda model, number: step.approve(model, number, name, reason))


@app.command()
def publish(namespace: NamespaceName, version: Version) -> None:
    """Bring a version from the registry to the model server, beside the one that serves."""
    from serving.rollout import publish as step  # noqa: PLC0415 - quick help

    _run(namespace, version, step.publish)


@app.command()
def replay(namespace: NamespaceName, version: Version) -> None:
    """Compare the new version's scores with the evaluation's; withdraw it if they differ."""
    from serving.rollout import replay as step  # noqa: PLC0415 - quick help

    _run(namespace, version, step.replay)


@app.command()
def canary(namespace: NamespaceName, version: Version) -> None:
    """Label the version `canary`; the recommender sends it a share of its requests as well."""
    from serving.rollout import canary as step  # noqa: PLC0415 - quick help

    _run(namespace, version, step.canary)


@app.command()
def compare(namespace: NamespaceName, version: Version) -> None:
    """Compare the canary with the stable version on recorded requests; withdraw it if it fails or is too slow."""
    from serving.rollout import compare as step  # noqa: PLC0415 - quick help

    _run(namespace, version, step.compare)


@app.command()
def withdraw(namespace: NamespaceName, version: Version) -> None:
    """Take a version under test from the server and from the disk."""
    from serving.rollout import canary as step  # noqa: PLC0415 - quick help

    _run(namespace, version, step.withdraw)


@app.command()
def promote(
    namespace: NamespaceName,
    version: Version,
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
    """Make the version the one that users get."""
    from serving.rollout import promote as step  # noqa: PLC0415 - quick help

    _run(namespace, version, lambda model, number: step.promote(model, number, key, despite_champion or ""))


@app.command()
def rollback(
    namespace: NamespaceName,
    to: Annotated[
        int | None,
        typer.Option(
            parser=checked(version_number),
            metavar="NUMBER",
            help="The version to go back to; without it, the one before.",
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for whoever asks later.")] = "",
    key: Key = "",
) -> None:
    """Go back to the version before, or to a named one."""
    from serving.rollout import rollback as step  # noqa: PLC0415 - quick help

    run_job(lambda: step.rollback(_model(namespace), to, reason, key))


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


def _run(namespace: str, version: int, step: Callable[[ServingModel, int], dict[str, object]]) -> None:
    run_job(lambda: step(_model(namespace), version))


def _model(namespace: str) -> ServingModel:
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
    )


if __name__ == "__main__":
    keep_out("feast")
    app()
