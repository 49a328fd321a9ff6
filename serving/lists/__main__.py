"""The lists that users would be shown: what they are made from, and how good they are by what users liked next."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - typer reads the annotations
from pathlib import Path  # noqa: TC003 - as above
from typing import TYPE_CHECKING, Annotated, cast

import typer

from feature_repo.contracts.intervals import check_id, parse_cutoff
from feature_repo.contracts.jobs import COMMAND_LINE, run_job
from feature_repo.options import NamespaceName, checked
from serving.lists.errors import NothingToLearnError

if TYPE_CHECKING:
    from serving.lists.comparison import Model

QuestionsId = Annotated[
    str,
    typer.Option(
        "--questions", parser=checked(check_id), metavar="ID", help="What `python -m pipelines questions` printed."
    ),
]


def _models(text: str) -> object:
    from serving.lists.comparison import parse_models  # noqa: PLC0415 - heavy, and not wanted for --help

    return parse_models(text)


def _id_or_none(text: str) -> str:
    return check_id(text) if text else ""


app = typer.Typer(no_args_is_help=True, help=__doc__, **COMMAND_LINE)


@app.callback()
def commands() -> None:
    """The measured lists."""


@app.command()
def measure(  # noqa: PLR0917 - typer makes options of them
    namespace: NamespaceName,
    questions: QuestionsId,
    out: Annotated[Path, typer.Option("--out", help="Where the record goes.")],
    saved_model: Annotated[
        Path | None, typer.Option("--saved-model", help="The candidate's SavedModel; without one recall is measured.")
    ] = None,
    training_set: Annotated[
        str,
        typer.Option(
            "--training-set", parser=checked(check_id), metavar="ID", help="What the candidate has learned from."
        ),
    ] = "",
    policy: Annotated[
        Path | None,
        typer.Option("--policy", help="Quotas and re-ranking, as `models choose` writes them; default: none."),
    ] = None,
    origin: Annotated[
        datetime | None,
        typer.Option(
            "--origin", parser=checked(parse_cutoff), metavar="DATE", help="A test origin; default: the last."
        ),
    ] = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", help="Where each user's figures go, as Parquet; default: nowhere.")
    ] = None,
    refit: Annotated[
        Path | None,
        typer.Option("--refit", help="What `python -m models refit` wrote: who stands in for a champion that knows."),
    ] = None,
) -> None:
    """Answer questions of the past with the recommender's engine, and measure the lists."""

    def job() -> dict[str, object]:
        from serving.lists import job  # noqa: PLC0415 - heavy, and not wanted for --help
        from serving.recommender.settings import load_settings  # noqa: PLC0415 - as above

        of = job.Measured(saved_model, training_set, policy, refit)
        return job.measure(load_settings(), namespace, questions, of, out, origin=origin, figures=figures)

    run_job(job)


@app.command()
def candidates(namespace: NamespaceName, questions: QuestionsId) -> None:
    """Ask recall the questions of every origin, and write what would be ranked: models learn lists from it.

    The exit status is 10 where there is nothing to learn from.
    """

    def job() -> dict[str, object]:
        from serving.lists.candidates import candidates as write  # noqa: PLC0415 - as above
        from serving.recommender.settings import load_settings  # noqa: PLC0415 - as above

        done = write(load_settings(), namespace, questions)
        if not done["candidates"]:
            raise NothingToLearnError(done)
        return done

    run_job(job)


@app.command()
def compare(
    namespace: NamespaceName,
    questions: QuestionsId,
    models: Annotated[
        object,
        typer.Option(
            "--models",
            parser=checked(_models),
            metavar="JSON",
            help='[{"name": …, "saved_model": DIR, "training_set": ID}, …]',
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Where the record goes.")],
    candidates: Annotated[
        str,
        typer.Option(
            "--candidates",
            parser=checked(_id_or_none),
            metavar="ID",
            help="What `candidates` printed: its quotas count; default: the declared ones.",
        ),
    ] = "",
) -> None:
    """Measure the lists of several models at the validation origins, for the best to be chosen."""

    def job() -> dict[str, object]:
        from serving.lists import comparison  # noqa: PLC0415 - as above
        from serving.recommender.settings import load_settings  # noqa: PLC0415 - as above

        chosen = cast("tuple[Model, ...]", models)
        return comparison.compare(load_settings(), namespace, questions, candidates, chosen, out)

    run_job(job)


if __name__ == "__main__":
    app()
