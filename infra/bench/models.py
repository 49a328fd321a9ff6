"""`python -m infra.bench.models`: every ranking model of the catalogue on one data set, at random and by time.

    data ── the data plane's jobs ──▶ training set ─┬─ random folds of its context table: a search, then each fold
                                                    ├─ by time: as production learns ─┬─ costs of the exported model
                                                    │                                 └─ its order of candidates
                                                    └─ as ranker: fitted to lists of the past ── its order of the same

Each fit is a cell: a file that is kept until code, config, data or a library changes, so that a run that was stopped
goes on where it was. What fails is told, and stops no other.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from feature_repo.contracts.exit_codes import ExitCode
from feature_repo.contracts.jobs import JobError, exit_code_of
from feature_repo.contracts.manifests import TrainingSet
from feature_repo.contracts.places import MANIFEST, REPOSITORY, state_folder
from feature_repo.contracts.publishing import CorruptRecordError, read_json, write_json
from infra.bench.models_cells import Cell, Kept, code_sha256
from infra.bench.models_lists import Offered, fit_ranker, list_specs, offer, order_of
from infra.bench.models_metrics import metrics_figures
from infra.bench.models_page import SUMMARY, record_figures, write_section
from infra.bench.models_peers import Environment, PeerBench, beside_peers
from infra.bench.models_search import options, searched
from infra.bench.models_summary import summary
from infra.bench.results import write_results
from infra.local.demo import bring_source, choose_mapping
from infra.local.places import Places
from infra.local.settings import ensure_settings_file
from infra.local.stack import command_environment
from models.benchmark.boosted import Boosted
from models.benchmark.context import FOLDS, read_context
from models.benchmark.job import baseline_rows, model_of, rows_by_time, told
from models.benchmark.measure import figures, measure
from models.benchmark.preparation import Prepared, prepare
from models.benchmark.protocols import Protocol
from models.dataset import TEST, TRAIN
from models.errors import BuildError, UnknownFeatureError
from models.evaluation.export_cost import export_cost
from models.export import export
from models.ranking.catalogue import RANKING_MODELS, ranking_model
from models.ranking.listing import COSTS
from models.saved_model_loader import SavedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from models.benchmark.context import ContextTable
    from models.dataset import Dataset
    from models.ranking.base import RankingConfig, RankingModel
    from models.specs.spec import Spec

    Model = RankingModel[RankingConfig] | Boosted

_WORK = "bench-models"
_BEST = 5
"""So many are measured at further origins."""
_ORIGINS = 3
_SEED = 1
_MODEL_S, _MODEL_PER_MILLION_S = 45, 270
"""All of a model's first cells: at least, and for each million rows, on two cores."""
_FIT_S, _FIT_PER_MILLION_S = 5, 70
"""Each further one, in the same way."""


@dataclass(frozen=True, slots=True)
class Bench:
    """One data set under measurement."""

    kept: Kept
    prepared: Prepared
    names: Sequence[str]
    """Of the models."""
    folds: int
    seeds: int
    say: Callable[[str], None]
    failed: list[str]
    """What has failed by a fault, and will be tried again in the next run."""

    def cell(self, cell: Cell, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Return a cell's record; that of a model which these rows do not suit has an `error`."""
        began = time.monotonic()
        try:
            record, was_there = self.kept.finished(cell, lambda: _unless_unsuited(make))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one model, the others are measured
            self.failed.append(f"{cell.name}: {told(error)}")
            self.say(f"{cell.name}: failed: {told(error)}")
            return {"model": cell.model, "number": cell.number, "seed": cell.seed, "error": told(error)}
        if not was_there:
            self.say(f"{cell.name}: {time.monotonic() - began:.0f} s")
        return record

    def exported(self, cell: Cell, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Return the record of a cell that leaves a SavedModel; without that it is made again."""
        found = self.kept.read(cell)
        if found is not None and "error" not in found and not self.kept.saved_model(cell).is_dir():
            self.kept.forget(cell)
        return self.cell(cell, make)


def run(  # noqa: PLR0917 - typer's options
    data: Annotated[str, typer.Option(envvar="KESTREL_ARG_DATA", help="Folder, zip or file; default: 100K.")] = "",
    source: Annotated[str, typer.Option(envvar="KESTREL_ARG_SOURCE", help="What DATA means: a YAML.")] = "",
    full: Annotated[
        str, typer.Option(envvar="KESTREL_ARG_FULL", help="1: all folds, three origins for the five best, and peers.")
    ] = "",
    models: Annotated[str, typer.Option(help="Names with commas between; default: the catalogue, and lightgbm.")] = "",
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Fits of each model by time.")] = 1,
    peers: Annotated[  # noqa: FBT002 - typer's
        bool, typer.Option("--peers", help="Fit other libraries' models, too, as FULL=1 does.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option(envvar="KESTREL_ARG_FOLDER", help="Where cells are kept; default: the state folder.")
    ] = None,
    docs: Annotated[Path, typer.Option(help="Where results/models.json and quality.md go.")] = REPOSITORY / "docs",
) -> None:
    """Measure one data set, then write the record and the section of all that the folder holds."""
    console = Console(width=None if Console().is_terminal else 120, log_path=False)
    state = state_folder(os.environ)
    work = folder or state / _WORK
    try:
        names = [each.strip() for each in models.split(",") if each.strip()] or [*RANKING_MODELS, Boosted.name]
        for name in names:
            model_of(name, Protocol.TIME, None)  # a wrong name is told before hours have gone by
        bench = _bench(console, state, work, (data, source), names, full=bool(full), seeds=seeds)
        environment = Environment(work / "peers-environment", state, os.environ, bench.say) if peers or full else None
        _measure(bench, full=bool(full), environment=environment)
        found = [read_json(path) for path in sorted(work.glob(f"*/{SUMMARY}"))]
        write_section(found, docs / "quality.md")
        figures = [*record_figures(found), *metrics_figures()]
        console.print(f"Written: {write_results('models', figures, docs / 'results')}, quality.md")
    except (JobError, CorruptRecordError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(int(exit_code_of(error))) from error
    if bench.failed:
        typer.echo("error: the next run tries again: " + "; ".join(bench.failed), err=True)
        raise typer.Exit(int(ExitCode.TERMINAL))


def _bench(
    console: Console,
    state: Path,
    work: Path,
    given: tuple[str, str],
    names: Sequence[str],
    *,
    full: bool,
    seeds: int,
) -> Bench:
    ensure_settings_file(state)

    def say(text: str) -> None:
        console.log(text, highlight=False)

    outside = command_environment(state, os.environ, toolchain_only=False)
    path = bring_source(given[0], Places(state), outside, say)
    say(f"Data: {path}; cells that are there are kept")
    began = time.monotonic()
    prepared = prepare(path, choose_mapping(given[1], given[0]), work / "state")
    say(f"lake and features: {time.monotonic() - began:.0f} s")
    kept = Kept(work / prepared.place.name / "cells")
    return Bench(kept, prepared, names, FOLDS if full else 1, seeds, say, [])


def _measure(bench: Bench, *, full: bool, environment: Environment | None = None) -> None:
    """Measure all cells of a data set and write its summary; peers are fitted where they have an environment."""
    training_set = bench.prepared.training_set()
    context = read_context(training_set)
    bench.say(_coming(len(context.rows), len(bench.names), bench.folds, bench.seeds, full=full))
    at_random = [record for name in bench.names if _reads_context(name) for record in _random(bench, context, name)]
    offered = _offered(bench, training_set)
    by_time = _by_time(bench, training_set, offered, 1, bench.names)
    specs = list_specs(bench.names)
    rankers = _rankers(bench, offered, 1, specs)
    peer_bench = PeerBench(bench.kept, bench.cell, environment, bench.names, bench.folds)
    beside = beside_peers(peer_bench, context, training_set, at_random)
    if full:
        best, rankers_best = _best(by_time, _auc), _best(rankers, _ndcg)
        for number in range(2, _ORIGINS + 1):
            # The next rows that are tested come before all that have been.
            end = datetime.fromisoformat(TrainingSet.read(training_set / MANIFEST).valid_end).date().isoformat()
            training_set = bench.prepared.training_set(end)
            offered = _offered(bench, training_set)
            by_time += _by_time(bench, training_set, offered, number, best)
            rankers += _rankers(bench, offered, number, {name: specs[name] for name in rankers_best})
    record = summary(bench.prepared.place.name, bench.kept, context, at_random, by_time, rankers=rankers)
    write_json(bench.kept.folder.parent / SUMMARY, record | {"peers": beside})


def _best(records: Sequence[Mapping[str, Any]], figure: Callable[[Mapping[str, Any]], float | None]) -> list[str]:
    """Return the models that are measured at further origins, by their first seed."""
    found = {each["model"]: figure(each) for each in records if each["seed"] == _SEED}
    known = {name: value for name, value in found.items() if value is not None}
    return sorted(known, key=lambda name: -known[name])[:_BEST]


def _auc(record: Mapping[str, Any]) -> float | None:
    return (record.get("figures") or {}).get("auc")


def _ndcg(record: Mapping[str, Any]) -> float | None:
    found: float | None = record["lists"].get("ndcg_at_10")
    return found


def _coming(rows: int, models: int, folds: int, seeds: int, *, full: bool) -> str:
    """Say what is coming, before it comes."""
    further = models * (folds - 1 + seeds - 1) + (_BEST * (_ORIGINS - 1) * seeds if full else 0)
    seconds = models * (_MODEL_S + _MODEL_PER_MILLION_S * rows / 1e6)
    seconds += further * (_FIT_S + _FIT_PER_MILLION_S * rows / 1e6)
    minutes = max(1, round(seconds / 60))
    return f"{rows:,} rows, {models} models: about {minutes} minutes, less what is there already, and without peers"


def _reads_context(name: str) -> bool:
    """Tell whether a model can be fitted without anybody's history, of which a context table has none."""
    return name == Boosted.name or "history" not in ranking_model(name).inputs


def _random(bench: Bench, context: ContextTable, name: str) -> list[dict[str, Any]]:
    """Return a record for each fold: the first searches for settings, which the others keep."""
    tried = options(name)
    configs = [option.config.model_dump(mode="json") for option in tried]
    digest = context.sha256
    first = Cell("random", 1, name, _SEED, {"configs": configs, "data": digest, "code": _code(tried[0])})
    found = [bench.cell(first, lambda: searched(bench.kept, first, tried, context.fold(1)))]
    if "option" not in found[0]:
        return found
    chosen = tried[found[0]["option"]]
    for number in range(2, bench.folds + 1):
        basis = {"config": chosen.config.model_dump(mode="json"), "data": digest, "code": _code(chosen)}
        cell = Cell("random", number, name, _SEED, basis)
        found.append(bench.cell(cell, lambda cell=cell: _fold(bench, cell, context, chosen)))  # type: ignore[misc]
    return found


def _fold(bench: Bench, cell: Cell, context: ContextTable, model: Model) -> dict[str, Any]:
    rows = context.fold(cell.number)
    measured = measure(model, rows, cell.seed)
    bench.kept.keep_scores(cell, measured.test)
    return {"figures": figures(rows[TEST], measured.test), "seconds": measured.seconds}


def _offered(bench: Bench, training_set: Path) -> Offered:
    return offer(bench.prepared, training_set.name, TrainingSet.read(training_set / MANIFEST).cutoff, bench.say)


def _by_time(
    bench: Bench, training_set: Path, offered: Offered, number: int, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the records of one origin: figures, costs, and what each makes of the same candidates."""
    rows_of = rows_by_time(training_set)
    untrained = baseline_rows(rows_of(Boosted.name))
    found = [{"part": "time", "number": number, **each, "figures": each} for each in untrained]
    for name in names:
        dataset = rows_of(name)
        for seed in range(1, bench.seeds + 1):
            model, _ = model_of(name, Protocol.TIME, None)
            basis = {"config": model.config.model_dump(mode="json"), "data": training_set.name, "code": _code(model)}
            cell = Cell("time", number, name, seed, basis)
            make = partial(_timed, bench, cell, dataset, model)
            record = bench.cell(cell, make) if name == Boosted.name else bench.exported(cell, make)
            found.append({**record, "lists": _lists(bench, cell, record, offered, training_set.name)})
    return found


def _rankers(bench: Bench, offered: Offered, number: int, specs: Mapping[str, Spec]) -> list[dict[str, Any]]:
    """Return the records of one origin: what each class that learned lists makes of the same candidates."""
    found = []
    for name, spec in specs.items() if offered.rows else ():
        for seed in range(1, bench.seeds + 1):
            model = spec.model()
            definition = {"spec": spec.definition, "config": model.config.model_dump(mode="json")}
            cell = Cell("ranker", number, name, seed, {**definition, "data": offered.rows, "code": _code(model)})
            make = partial(_ranked, bench, cell, offered, spec)
            record = bench.exported(cell, make)
            found.append({**record, "lists": _lists(bench, cell, record, offered, offered.rows)})
    return found


def _ranked(bench: Bench, cell: Cell, offered: Offered, spec: Spec) -> dict[str, Any]:
    return {"seconds": fit_ranker(bench.prepared, offered, spec, cell.seed, bench.kept.saved_model(cell))}


def _timed(bench: Bench, cell: Cell, dataset: Dataset, model: Model) -> dict[str, Any]:
    measured = measure(model, dataset, cell.seed)
    found: dict[str, Any] = {"figures": figures(dataset[TEST], measured.test), "seconds": measured.seconds, "costs": {}}
    if measured.fitted is not None:
        place = bench.kept.saved_model(cell)
        shutil.rmtree(place, ignore_errors=True)
        export(measured.fitted, dataset.signature, place)
        cost = export_cost(place, SavedModel(place), dataset[TEST], dataset.signature, cell.seed)
        cost["seconds_per_million_rows"] = measured.seconds / dataset[TRAIN].rows * 1e6
        found["costs"] = {name: cost[name] for name in COSTS}
    return found


def _lists(bench: Bench, cell: Cell, record: Mapping[str, Any], offered: Offered, training_set: str) -> dict[str, Any]:
    """Return what a model's own order of the candidates is worth, at the validation origin."""
    saved_model = bench.kept.saved_model(cell)
    if "error" in record or not saved_model.is_dir():
        return {}
    basis = {"model": cell.key, "offered": asdict(offered), "code": code_sha256("serving.lists.comparison")}
    own = Cell(f"lists-{cell.part}", cell.number, cell.model, cell.seed, basis)
    out = bench.kept.folder / f"{own.name}-compared.json"
    model = {"name": cell.model, "saved_model": str(saved_model), "training_set": training_set}
    return bench.cell(own, lambda: order_of(bench.prepared, offered, model, out))


def _unless_unsuited(make: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return what `make` does, or why a model cannot be made of such rows, which is as good as a figure."""
    try:
        return make()
    except (BuildError, UnknownFeatureError) as error:
        return {"error": told(error)}


def _code(model: Model) -> str:
    return code_sha256("models.benchmark.measure", type(model).__module__)


if __name__ == "__main__":
    typer.run(run)
