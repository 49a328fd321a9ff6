"""The model plane's jobs: `python -m models {train,evaluate,gate}`."""

from __future__ import annotations

from typing import Annotated

import typer

from feature_repo.contracts.intervals import check_id
from feature_repo.contracts.isolation import keep_out
from feature_repo.contracts.jobs import COMMAND_LINE, run_job
from feature_repo.contracts.places import Namespace
from feature_repo.options import NamespaceName, checked
from models.candidate_folder import JUDGEMENT, CandidateFolder, check_run_key
from models.settings import settings

app = typer.Typer(help=__doc__, no_args_is_help=True, **COMMAND_LINE)

TrainingSetOption = Annotated[
    str,
    typer.Option(
        "--training-set", parser=checked(check_id), metavar="ID", help="The id that the training-set job printed."
    ),
]
RunKeyOption = Annotated[
    str,
    typer.Option(
        "--run-key",
        parser=checked(check_run_key),
        metavar="KEY",
        help="Names this training run; a retry passes the same.",
    ),
]


@app.command()
def train(
    namespace: NamespaceName,
    training_set: TrainingSetOption,
    run_key: RunKeyOption,
    model: Annotated[str, typer.Option("--model", help="A name from models/ranking/catalogue.py, such as deepfm.")],
) -> None:
    """Fit a model, export it as a SavedModel and log it to MLflow."""

    def job() -> dict[str, object]:
        from models.training.job import train  # noqa: PLC0415 - TensorFlow takes seconds to import

        return train(settings(), namespace, training_set, model, run_key)

    run_job(job)


@app.command()
def evaluate(namespace: NamespaceName, training_set: TrainingSetOption, run_key: RunKeyOption) -> None:
    """Compare the candidate with the champion and the baselines on the test rows."""

    def job() -> dict[str, object]:
        from models.evaluation.job import evaluate  # noqa: PLC0415 - TensorFlow takes seconds to import

        with _folder(namespace, run_key).held(JUDGEMENT):
            return evaluate(settings(), namespace, training_set, run_key)

    run_job(job)


@app.command()
def gate(namespace: NamespaceName, training_set: TrainingSetOption, run_key: RunKeyOption) -> None:
    """Decide on the candidate, register it, and write the report. A rejection is a result: the exit status is 0."""

    def job() -> dict[str, object]:
        from models.gates.job import gate  # noqa: PLC0415 - MLflow takes seconds to import

        with _folder(namespace, run_key).held(JUDGEMENT):
            return gate(settings(), namespace, training_set, run_key)

    run_job(job)


def _folder(namespace: str, run_key: str) -> CandidateFolder:
    return CandidateFolder(Namespace(settings().state, namespace), run_key)


if __name__ == "__main__":
    keep_out("feast")
    app()
