"""`python -m infra.bench.lists`: the lists that users would be shown, on a whole data set, origins and seeds apart.

For each test origin the jobs of the loop run as for a refresh that ends there: training sets, every spec's training,
the choice by validation lists, and then `serving.lists` with the questions of that origin. They work in a state folder
of the benchmark's own. A cell is one origin and one seed: a file, written once, so that a run that was stopped goes on
where it was. Every data set that the folder holds is in the record and on the page: measure one after another.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from feature_repo.contracts.exit_codes import ExitCode
from feature_repo.contracts.intervals import parse_cutoff
from feature_repo.contracts.jobs import JobError, exit_code_of
from feature_repo.contracts.manifests import Questions
from feature_repo.contracts.places import MANIFEST, REPOSITORY, Namespace, cutoff_name, state_folder
from feature_repo.contracts.planes import JobFailedError, run_plane
from feature_repo.contracts.publishing import CorruptRecordError, read_json, write_json
from feature_repo.contracts.questions import Role
from infra.bench.lists_cells import DATA_FILE, LEARNERS, is_measured, read_cells
from infra.bench.lists_page import write_page
from infra.bench.results import write_results
from infra.bench.stack import private_stack
from infra.local.demo import bring_source, choose_mapping, choose_namespace
from infra.local.places import Places
from infra.local.settings import ensure_settings_file
from infra.local.stack import command_environment
from models.specs.spec import parse_spec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ONCE_S, _ONCE_PER_MILLION_S = 90, 350
"""Ingestion, features and questions: at least, and for each million events, on two cores."""
_ORIGIN_S, _ORIGIN_PER_MILLION_S = 80, 250
"""Questions and training sets of an origin: at least, and for each million rows."""
_CELL_S, _CELL_PER_MILLION_S = 160, 400
"""Training and lists of a cell, in the same way."""
_WORK = "bench-lists"
LISTS = "lists"
"""A spec of `models/specs/ranking.yaml`, whose inputs other learners get, too."""


@dataclass(frozen=True, slots=True)
class Bench:
    """One data set under measurement."""

    folder: Path
    """The data set's own: state, cells, and what is known of it."""
    namespace: str
    environment: Mapping[str, str]
    console: Console

    @property
    def place(self) -> Namespace:
        """Where the jobs write."""
        return Namespace(self.folder / "state", self.namespace)

    def run(self, *arguments: str, **settings: str) -> dict[str, Any]:
        """Run one job of this namespace and say how long it took."""
        began = time.monotonic()
        given = {f"KESTREL_{name.upper()}": value for name, value in settings.items()}
        result = run_plane([*arguments, "--namespace", self.namespace], {**self.environment, **given})
        self.console.log(f"{' '.join(arguments[:2])}: {time.monotonic() - began:.0f} s", highlight=False)
        return result


def measure(  # noqa: PLR0917 - typer's options
    data: Annotated[str, typer.Option(envvar="KESTREL_ARG_DATA", help="Folder, zip or file; default: 100K.")] = "",
    source: Annotated[str, typer.Option(envvar="KESTREL_ARG_SOURCE", help="What DATA means: a YAML.")] = "",
    namespace: Annotated[str, typer.Option(envvar="KESTREL_ARG_NAMESPACE", help="Default: the data set's name.")] = "",
    origins: Annotated[int, typer.Option(min=1, max=50, help="Test origins at most, the latest first.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Trainings at each origin.")] = 2,
    folder: Annotated[
        Path | None, typer.Option(envvar="KESTREL_ARG_FOLDER", help="Where cells are kept; default: the state folder.")
    ] = None,
    docs: Annotated[Path, typer.Option(help="Where results/lists.json and quality.md go.")] = REPOSITORY / "docs",
) -> None:
    """Measure one data set, then write the record and the page of all that the folder holds."""
    console = Console(width=None if Console().is_terminal else 120, log_path=False)
    state = state_folder(os.environ)
    try:
        work = folder or state / _WORK
        _measure(console, state, work, (data, source, namespace), origins, seeds)
        found = read_cells(work)
        figures = write_page(found, docs)
        console.print(f"Written: {write_results('lists', figures, docs / 'results')}, {docs / 'quality.md'}")
    except (JobError, CorruptRecordError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(int(exit_code_of(error))) from error


def _measure(  # noqa: PLR0917 - where, of what, how often
    console: Console, state: Path, work: Path, given: tuple[str, str, str], origins: int, seeds: int
) -> None:
    data, mapping, name = given
    mapped = ["--mapping", choose_mapping(mapping, data)] if mapping else []
    if name:
        choose_namespace(name, {})
    ensure_settings_file(state)
    outside = command_environment(state, os.environ, toolchain_only=False)
    source = bring_source(data, Places(state), outside, console.log)
    described = run_plane(["pipelines", "describe", "--source", str(source), *mapped], outside)
    namespace = choose_namespace(name, described)
    _announce(console, source, described, origins, seeds)
    with private_stack(["mlflow"], given={}, folder=None, say=lambda text: console.log(text.strip())) as stack:
        environment = _environment(outside, work / namespace / "state", stack.settings.mlflow_uri)
        bench = Bench(work / namespace, namespace, environment, console)
        cutoff, questions = _prepare(bench, source, mapped, origins)
        _write_data(bench, source, described, cutoff, questions)
        if questions.note:
            console.print(questions.note, highlight=False, soft_wrap=True)
        tests = [each for each in questions.origins if each["role"] == Role.TEST][-origins:]
        cells = [(str(each["origin"]), seed) for each in reversed(tests) for seed in range(1, seeds + 1)]
        for number, (origin, seed) in enumerate(cells, 1):
            console.log(f"Cell {number} of {len(cells)}: origin {origin[:10]}, seed {seed}", highlight=False)
            _cell(bench, questions, origin, seed)


def _environment(outside: Mapping[str, str], state: Path, mlflow_uri: str) -> dict[str, str]:
    """Return what the measured jobs see: a state of their own, the tools of this one."""
    return {**outside, "KESTREL_STATE": str(state), "KESTREL_MLFLOW_URI": mlflow_uri}


def _announce(console: Console, source: Path, described: Mapping[str, Any], origins: int, seeds: int) -> None:
    """Say what is coming, before it comes."""
    events, rows = int(described["events"]) / 1e6, int(described["training_rows"]) / 1e6
    seconds = _ONCE_S + _ONCE_PER_MILLION_S * events + origins * (_ORIGIN_S + _ORIGIN_PER_MILLION_S * rows)
    seconds += origins * seeds * (_CELL_S + _CELL_PER_MILLION_S * rows)
    console.print(
        f"Data: {source}, {described['layout']}, {int(described['events']):,} events. At most {origins} test origins x "
        f"{seeds} seeds will take about {max(1, round(seconds / 60))} minutes; cells that are there are kept",
        highlight=False,
    )


def _prepare(bench: Bench, source: Path, mapped: Sequence[str], origins: int) -> tuple[str, Questions]:
    """Bring the data set to where questions can be asked; what is unchanged is not computed again."""
    (bench.folder / "state").mkdir(parents=True, exist_ok=True)
    done = bench.run("pipelines", "ingest", "--source", str(source), *mapped)
    cutoff = str(done["cutoff"])
    prepared = bench.folder / "prepared.json"
    mark: dict[str, object] = {"checksum": done["checksum"], "cutoff": cutoff}
    if not prepared.exists() or read_json(prepared) != mark:
        bench.run("pipelines", "features", "--cutoff", cutoff)
        bench.run("pipelines", "registry")
        write_json(prepared, mark)
    # Two of five origins validate: as many more as leave `origins` for the test.
    spaced = {"question_origins": str(max(2, round(origins / 0.6))), "question_train_origins": "0"}
    asked = bench.run("pipelines", "questions", "--cutoff", cutoff, **spaced)
    return cutoff, Questions.read(bench.place.questions / str(asked["questions"]) / MANIFEST)


def _write_data(bench: Bench, source: Path, described: Mapping[str, Any], cutoff: str, questions: Questions) -> None:
    record = {
        "namespace": bench.namespace,
        "source": source.name,
        "layout": described["layout"],
        "events": described["events"],
        "cutoff": cutoff,
        "questions_id": questions.questions_id,
        "days": questions.days,
        "origins": questions.origins,
        "note": questions.note,
    }
    write_json(bench.folder / DATA_FILE, record)


def _cell(bench: Bench, questions: Questions, origin: str, seed: int) -> None:
    """Train as for a refresh that ends at the origin, and measure the lists; nothing where it was measured before.

    Every spec that may become champion is trained, and the lists before the origin choose among them, as in the loop.
    """
    name = f"{cutoff_name(parse_cutoff(origin))}-seed{seed}"
    record, figures = (bench.folder / "cells" / f"{name}.{kind}" for kind in ("json", "parquet"))
    if is_measured(record, questions.questions_id):
        return
    record.unlink(missing_ok=True)
    run = ("--run-key", f"lists-{questions.questions_id}-{name}")
    training_set = str(bench.run("pipelines", "training-set", "--cutoff", origin)["training_set"])
    asked = str(bench.run("pipelines", "questions", "--cutoff", origin, "--training-set", training_set)["questions"])
    offered, rows = _list_rows(bench, origin, asked)
    sets = ("--training-set", training_set, *(("--lists", rows) if rows else ()))
    specs = run_plane(["models", "specs"], bench.environment)
    trained = [
        bench.run("models", "train", *sets, *run, "--spec", json.dumps(spec), seed=str(seed)) for spec in specs["specs"]
    ]
    compared = figures.with_name(f"{name}-validation.json")
    figures.parent.mkdir(parents=True, exist_ok=True)
    competing = json.dumps([each for each in trained if each["competes"]])
    offer = ("--candidates", offered) if offered else ()
    bench.run("serving.lists", "compare", "--questions", asked, *offer, "--models", competing, "--out", str(compared))
    given = ("--specs", json.dumps(specs["specs"]), "--choose-by", str(specs["choose_by"]))
    chosen = bench.run("models", "choose", *sets, *run, *given, "--validation-lists", str(compared))
    measured = ("--questions", questions.questions_id, "--origin", origin)
    model = ("--saved-model", str(chosen["saved_model"]), "--training-set", str(chosen["training_set"]))
    policy = ("--policy", str(chosen["policy"]), "--figures", str(figures), "--out", str(record))
    done = bench.run("serving.lists", "measure", *measured, *model, *policy)
    bench.console.print(f"{chosen['spec']}: {done['sentence']}", highlight=False, soft_wrap=True)
    if rows and seed == 1:
        _measure_learners(bench, rows, specs["specs"], trained, record.with_name(f"{name}{LEARNERS}"))


def _measure_learners(
    bench: Bench, rows: str, specs: Sequence[Mapping[str, Any]], trained: Sequence[Mapping[str, Any]], path: Path
) -> None:
    """Have other learners order the rows that the spec LISTS learned from: the same inputs, the same moments."""
    from infra.bench.lists_learners import measure_learners  # noqa: PLC0415 - TensorFlow, which little else here needs

    began = time.monotonic()
    own = {str(each["name"]): Path(str(each["saved_model"])) for each in trained if each.get("training_set") == rows}
    spec = parse_spec(next(each for each in specs if each["name"] == LISTS))
    write_json(path, measure_learners(bench.place.training_sets / rows, spec, own, seed=1))
    bench.console.log(f"other learners: {time.monotonic() - began:.0f} s", highlight=False)


def _list_rows(bench: Bench, cutoff: str, questions: str) -> tuple[str, str]:
    """Return what recall offered for the questions, and the training set of it; empty where a log is too short."""
    try:
        candidates = str(bench.run("serving.lists", "candidates", "--questions", questions)["candidates"])
        rows = bench.run("pipelines", "training-set", "--cutoff", cutoff, "--kind", "lists", "--candidates", candidates)
    except JobFailedError as error:
        if error.status != ExitCode.REJECTED:
            raise
        bench.console.print(str(error), highlight=False, soft_wrap=True)
        return "", ""
    return candidates, str(rows["training_set"])


if __name__ == "__main__":
    typer.run(measure)
