"""The model plane's jobs: `python -m models {catalogue,benchmark,specs,train,choose,refit,evaluate,gate}`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from feature_repo.contracts.intervals import check_id
from feature_repo.contracts.isolation import keep_out
from feature_repo.contracts.jobs import COMMAND_LINE, run_job
from feature_repo.contracts.objectives import Metric
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.publishing import replacing
from feature_repo.contracts.signatures import RANKING_MODEL
from feature_repo.options import NamespaceName, checked
from models.benchmark.protocols import Protocol
from models.candidate_folder import JUDGEMENT, CandidateFolder, check_run_key
from models.gates.margins import read_margins
from models.settings import settings
from models.specs.spec import Spec, Specs, parse_spec, read_specs

Kind = TypeVar("Kind")

_COSTS = Path(__file__).parent.parent / "docs" / "results" / "models.json"

app = typer.Typer(help=__doc__, no_args_is_help=True, **COMMAND_LINE)

TrainingSetOption = Annotated[
    str,
    typer.Option(
        "--training-set",
        parser=checked(check_id),
        metavar="ID",
        help="The id that the training-set job of kind ranking printed.",
    ),
]


def _id_or_none(text: str) -> str:
    """Return an id, or nothing: a task may have had none to print."""
    return check_id(text) if text else ""


ListsOption = Annotated[
    str,
    typer.Option(
        "--lists",
        parser=checked(_id_or_none),
        metavar="ID",
        help="The id that the training-set job of kind lists printed; nothing, if it had too little to ask about.",
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


def _json_list(text: str) -> list[Any]:
    return _json(text, list)


def _json_object(text: str) -> dict[str, Any]:
    return _json(text, dict)


def _json(text: str, kind: type[Kind]) -> Kind:
    try:
        value = json.loads(text)
    except ValueError as error:
        msg = f"expected JSON, received {text!r:.200}: {error}"
        raise ValueError(msg) from error
    if not isinstance(value, kind):
        msg = f"expected a JSON {'list' if kind is list else 'object'}, received {text!r:.200}"
        raise ValueError(msg)  # noqa: TRY004 - a wrong value of an option
    return value


def _specs() -> Specs:
    return read_specs(RANKING_MODEL, settings().model_specs)


def _spec(given: str) -> Spec:
    """Return the spec that `--spec` names, or is."""
    if given.lstrip().startswith("{"):
        return parse_spec(_json_object(given)).whole()
    return _specs().named(given).whole()


@app.command()
def catalogue(
    page: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the list for people, as Markdown.")] = None,
) -> None:
    """Print every class of models that specs can name, and its costs where `make bench-models` has measured them."""

    def job() -> dict[str, object]:
        from models.ranking.listing import listing, measured_costs, to_markdown  # noqa: PLC0415 - TensorFlow, as above

        ranking = listing(measured_costs(_COSTS))
        if page is not None:
            with replacing(page) as part:
                part.write_text(to_markdown(ranking), encoding="utf-8")
        return {"ranking": ranking, "retrieval": []}

    run_job(job)


class Task(StrEnum):
    """What models are compared at."""

    RANKING = "ranking"


@app.command()
def benchmark(  # noqa: PLR0917 - typer's options
    data: Annotated[
        Path,
        typer.Option(metavar="PATH", help="Rows that are divided: dataset.yaml, train, valid, test; else any source."),
    ],
    models: Annotated[str, typer.Option(metavar="NAMES", help="Of `catalogue`, and lightgbm, with commas between.")],
    task: Annotated[Task, typer.Option(help="What is learned.")] = Task.RANKING,  # noqa: ARG001 - there is one today
    protocol: Annotated[Protocol, typer.Option(help="How rows are divided.")] = Protocol.GIVEN_SPLIT,
    mapping: Annotated[
        str, typer.Option(metavar="YAML", help="What a source means whose layout is not published; random and time.")
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Fits of each model.")] = 1,
    preset: Annotated[Path | None, typer.Option(metavar="YAML", help="Settings, and published rows.")] = None,
) -> None:
    """Fit models to rows that are divided one way or another, and score the test rows."""
    if mapping and protocol is Protocol.GIVEN_SPLIT:
        msg = "expected none with --protocol given-split, whose dataset.yaml says what the rows mean; leave it out"
        raise typer.BadParameter(msg, param_hint="--mapping")

    def job() -> dict[str, object]:
        from models.benchmark.job import benchmark  # noqa: PLC0415 - TensorFlow, as above
        from models.benchmark.presets import read_presets  # noqa: PLC0415

        presets = read_presets(preset) if preset is not None else None
        return benchmark(protocol, data, mapping, [name.strip() for name in models.split(",")], seeds, presets)

    run_job(job)


@app.command()
def specs(
    only: Annotated[
        Any,
        typer.Option(parser=checked(_json_list), metavar="JSON", help='A list of names, such as ["deepfm", "lr"].'),
    ] = None,
    configs: Annotated[
        Any,
        typer.Option(
            parser=checked(_json_object), metavar="JSON", help='Other configs by name: {"deepfm": {"hidden": [64]}}.'
        ),
    ] = None,
) -> None:
    """Print what a training run trains, every spec with its whole config; refuse a wrong file of gates, too."""

    def job() -> dict[str, object]:
        chosen = _specs().chosen(only or (), configs)
        read_margins(RANKING_MODEL, settings().gate_margins)  # the run's last task needs them: its first one says no
        return {
            "choose_by": chosen.choose_by.value,
            "choose_without_lists": chosen.choose_without_lists.value,
            "specs": [spec.record() for spec in chosen.specs],
        }

    run_job(job)


@app.command()
def train(
    namespace: NamespaceName,
    training_set: TrainingSetOption,
    run_key: RunKeyOption,
    spec: Annotated[
        str, typer.Option("--spec", help="A spec's name, such as deepfm, or the JSON that `specs` prints.")
    ],
    lists: ListsOption = "",
) -> None:
    """Fit a model, export it as a SavedModel and log it to MLflow."""

    def job() -> dict[str, object]:
        from models.training.job import train  # noqa: PLC0415 - TensorFlow takes seconds to import

        return train(settings(), namespace, training_set, _spec(spec), run_key, lists_id=lists)

    run_job(job)


@app.command()
def choose(  # noqa: PLR0917 - typer makes options of them
    namespace: NamespaceName,
    training_set: TrainingSetOption,
    run_key: RunKeyOption,
    specs: Annotated[
        Any, typer.Option("--specs", parser=checked(_json_list), metavar="JSON", help="The list that `specs` prints.")
    ],
    choose_by: Annotated[
        Metric, typer.Option("--choose-by", help="The metric that decides: of lists, or of the validation rows.")
    ],
    choose_without_lists: Annotated[
        Metric, typer.Option("--choose-without-lists", help="The metric of rows that decides where no list does.")
    ] = Metric.LOG_LOSS,
    lists: ListsOption = "",
    validation_lists: Annotated[
        str,
        typer.Option(
            "--validation-lists",
            metavar="FILE",
            help="What `python -m serving.lists compare` wrote; without it rows decide.",
        ),
    ] = "",
) -> None:
    """Choose the trained spec that is evaluated, by its lists at the validation origin, or by its validation rows."""

    def job() -> dict[str, object]:
        from models.training.choose import choose  # noqa: PLC0415 - MLflow takes seconds to import

        every = tuple(map(parse_spec, specs))
        trained = Specs(choose_by=choose_by, choose_without_lists=choose_without_lists, specs=every)
        measured = Path(validation_lists) if validation_lists else None
        with _folder(namespace, run_key).held(JUDGEMENT):
            return choose(
                settings(), namespace, training_set, run_key, trained, lists_id=lists, validation_lists=measured
            )

    run_job(job)


@app.command()
def refit(
    namespace: NamespaceName,
    training_set: TrainingSetOption,
    run_key: RunKeyOption,
    questions: Annotated[
        str,
        typer.Option(
            "--questions", parser=checked(check_id), metavar="ID", help="What `python -m pipelines questions` printed."
        ),
    ],
) -> None:
    """Fit the champion's spec again, where the champion has learned from what the gates ask."""

    def job() -> dict[str, object]:
        from models.training.refit import refit  # noqa: PLC0415 - TensorFlow takes seconds to import

        with _folder(namespace, run_key).held(JUDGEMENT):
            return refit(settings(), namespace, training_set, run_key, questions)

    run_job(job)


@app.command()
def evaluate(namespace: NamespaceName, training_set: TrainingSetOption, run_key: RunKeyOption) -> None:
    """Compare the candidate with the champion, or its spec fitted again, and the baselines on the test rows."""

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
