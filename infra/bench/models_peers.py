"""Ranking models beside other people's implementations, in an environment of their own, on the same rows.

    folds of the context table ─┬─ given-split folders ── peers.run, in the peers' environment ─┬─ difference
                                └─ our models, as `make bench-models` fits them ────────────────┘
    by time: ids, attributes and the last items ── the same folder for ours and the peers

Each fit is a cell of part "peer" or "peer-time". A run without peers shows those that are there.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.datasets import ITEM_ID
from feature_repo.contracts.places import REPOSITORY
from feature_repo.contracts.publishing import read_json, write_json
from infra.bench.errors import BenchError
from infra.bench.models_cells import Cell, code_sha256
from infra.bench.models_search import options, searched
from infra.bench.models_summary import difference
from infra.bench.peers.catalogue import AT_RANDOM, BY_TIME, MODULES
from infra.local.installation import InstallationError, provide_uv, uv_environment
from models.benchmark.given_split import (
    DECLARATION,
    DeclaredField,
    given_split,
    read_given_split,
    write_given_split,
)
from models.benchmark.measure import figures
from models.dataset import TEST, TRAIN, VALID
from models.evaluation.metrics import auc
from models.ranking.catalogue import ranking_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from infra.bench.models_cells import Kept
    from models.benchmark.context import ContextTable
    from models.benchmark.given_split import GivenDataset

    Record = Mapping[str, Any]

AT_RANDOM_PART, BY_TIME_PART, OURS_BY_TIME_PART = "peer", "peer-time", "given-time"
REQUIREMENTS = REPOSITORY / "infra" / "bench" / "peers" / "requirements.txt"
HISTORY = "user_last_items"
_RUNNER = "infra.bench.peers.run"
_THREADS = 2
_SEED = 1
_TOLD_LINES = 15
"""So much of what a peer said is shown where it failed."""
_STAMP = "installed.sha256"


class Environment:
    """Where the peers live: made when the first of them is run, and again where the requirements changed."""

    def __init__(self, folder: Path, state: Path, environ: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._folder, self._state, self._environ, self._say = folder, state, environ, say
        self._error: BenchError | None = None

    def run(self, job: Path) -> None:
        """Run a job.

        Raises:
            BenchError: The environment cannot be made, or the peer failed; the message ends with what was said.
        """
        command = [str(self._python()), "-W", "ignore", "-m", _RUNNER, str(job)]
        with tempfile.TemporaryDirectory() as scratch:  # libraries leave logs where they are run
            done = subprocess.run(command, cwd=scratch, env=self._clean(), capture_output=True, text=True, check=False)
        if done.returncode:
            said = "\n".join(done.stderr.strip().splitlines()[-_TOLD_LINES:])
            msg = f"{' '.join(command)} ended with status {done.returncode}:\n{said}"
            raise BenchError(msg)

    def _clean(self) -> dict[str, str]:
        others = {name: value for name, value in self._environ.items() if not name.startswith("PYTHON")}
        return {**others, "PYTHONPATH": str(REPOSITORY)}

    def _python(self) -> Path:
        """Return the interpreter; what failed once in this run fails at once again."""
        if self._error is not None:
            raise self._error
        try:
            return self._made()
        except (BenchError, InstallationError, OSError) as error:
            self._error = BenchError(f"the environment of the peers cannot be made: {error}")
            raise self._error from error

    def _made(self) -> Path:
        python, stamp = self._folder / "bin" / "python", self._folder / _STAMP
        wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
        if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
            return python
        self._say("Making the environment of the peers (1.7 GB are fetched, 4 GB on the disk)")
        stamp.unlink(missing_ok=True)
        environment = uv_environment(self._environ, self._state)
        uv = str(provide_uv(self._state, environment))
        for command in (
            [uv, "venv", "--quiet", "--allow-existing", str(self._folder)],
            [uv, "pip", "sync", "--quiet", "--python", str(python), str(REQUIREMENTS)],
        ):
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                msg = f"{' '.join(command)}: {done.stderr.strip()[-1000:]}"
                raise BenchError(msg)
        stamp.write_text(wanted, encoding="utf-8")
        return python


@dataclass(frozen=True, slots=True)
class PeerBench:
    """One data set whose rows peers are fitted to, too."""

    kept: Kept
    cell: Callable[[Cell, Callable[[], Mapping[str, Any]]], dict[str, Any]]
    """Makes a cell unless it is there; one that failed has an `error`."""
    environment: Environment | None
    """None where nothing is run, and only what is there is shown."""
    names: Sequence[str]
    """Of our models: those whose peers are asked for."""
    folds: int

    @property
    def folder(self) -> Path:
        """Where given splits and jobs lie."""
        return self.kept.folder.parent / "peers"

    def made(self, cell: Cell, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any] | None:
        """Return a cell's record; None where it is not there and nothing is run."""
        return self.cell(cell, make) if self.environment is not None else self.kept.read(cell)


@dataclass(frozen=True, slots=True)
class Job:
    """One peer's model on one given split."""

    part: str
    number: int
    peer: str
    model: str
    settings: Sequence[Mapping[str, Any]]
    """Of which the validation rows choose one."""
    data: str
    """A hash of the rows."""

    @property
    def cell(self) -> Cell:
        """The cell: its key has the peer's code and the versions of its whole environment."""
        named = AT_RANDOM if self.part == AT_RANDOM_PART else BY_TIME
        basis = {
            "theirs": named[self.peer][self.model],
            "settings": list(self.settings),
            "data": self.data,
            "code": runner_sha256(self.peer),
            "versions": pinned(),
        }
        return Cell(self.part, self.number, f"{self.peer}-{self.model}", _SEED, basis, libraries=())


def pinned() -> list[str]:
    """Return the lines of the requirements: every library of the peers' environment with its version."""
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    return [line for line in map(str.strip, lines) if line and not line.startswith("#")]


def runner_sha256(peer: str) -> str:
    """Return a hash of the code that fits a peer's models."""
    digest = hashlib.sha256()
    for name in ("run", "rows", MODULES[peer]):
        digest.update((REQUIREMENTS.parent / f"{name}.py").read_bytes() + b"\0")
    return digest.hexdigest()


def peer_settings(model: str) -> list[dict[str, Any]]:
    """Return the same as peers take them, the fit's among them: the budget is one for all."""
    found = []
    for option in options(model):
        settings = option.config.model_dump(mode="json")
        found.append({**{name: value for name, value in settings.items() if name != "fit"}, **settings["fit"]})
    return found


def peers_at_random(bench: PeerBench, context: ContextTable) -> list[dict[str, Any]]:
    """Return a record for each library, model and fold: the first fold searches for the settings of all."""
    found = []
    for peer, models in AT_RANDOM.items():
        for model in (name for name in models if name in bench.names):
            settings = peer_settings(model)
            for number in range(1, bench.folds + 1):
                job = Job(AT_RANDOM_PART, number, peer, model, settings, context.sha256)
                record = _fitted(bench, job, lambda number=number: _fold(bench, context, number))  # type: ignore[misc]
                if record is not None:
                    found.append(record)
                if record is None or "option" not in record:
                    break
                if number == 1:
                    settings = [settings[record["option"]]]
    return found


def _fold(bench: PeerBench, context: ContextTable, number: int) -> Path:
    """Return the folder of a fold, written unless it is there."""
    folder = bench.folder / f"{context.sha256[:12]}-{number}"
    if not (folder / DECLARATION).exists():
        write_given_split(context.declared, context.tables(number), folder)
    return folder


def _fitted(bench: PeerBench, job: Job, rows: Callable[[], Path]) -> dict[str, Any] | None:
    """Return a job's record, with the library and our name of the model."""
    cell = job.cell
    record = bench.made(cell, lambda: _run(bench, job, cell, rows()))
    return None if record is None else {**record, "peer": job.peer, "of": job.model}


def _run(bench: PeerBench, job: Job, cell: Cell, folder: Path) -> dict[str, Any]:
    """Run a job, and keep the scores of its test rows."""
    assert bench.environment is not None  # noqa: S101 - nothing is made without one
    out = bench.folder / "jobs" / cell.name
    path = out.with_name(f"{out.name}.job.json")
    write_json(
        path,
        {
            "folder": str(folder.resolve()),
            "peer": job.peer,
            "model": job.model,
            "settings": list(job.settings),
            "seed": _SEED,
            "out": str(out.resolve()),
            "threads": _THREADS,
        },
    )
    bench.environment.run(path)
    record = read_json(out.with_name(f"{out.name}.json"))
    scores: NDArray[np.float32] = np.load(out.with_name(f"{out.name}-{TEST}.npy"))
    split = read_given_split(folder)[TEST]
    if len(scores) != len(split.labels) or not np.isfinite(scores).all():
        msg = f"{cell.name}: expected {len(split.labels)} finite scores, received {len(scores)} or some that are none"
        raise BenchError(msg)
    bench.kept.keep_scores(cell, scores)
    return {**record, "figures": figures(split, scores)}


def peer_lines(
    kept: Kept, context: ContextTable, at_random: Sequence[Record], peers: Sequence[Record]
) -> list[dict[str, Any]]:
    """Return what stands in the summary of each pair: both AUCs over the folds that both have, and the difference.

    Args:
        kept: Where scores are.
        context: The rows of the folds.
        at_random: Records of our models.
        peers: Those of `peers_at_random`.
    """
    tested = context.tested_in
    labels = context.rows["label"].to_numpy().astype(np.int64)
    users = np.unique(context.rows["user_id"].to_numpy().astype(str), return_inverse=True)[1]
    found = []
    for peer, model in dict.fromkeys((each["peer"], each["of"]) for each in peers):
        theirs = {each["number"]: each for each in peers if (each["peer"], each["of"]) == (peer, model)}
        ours = {each["number"] for each in at_random if each["model"] == model and "figures" in each}
        both = sorted(number for number, each in theirs.items() if "figures" in each and number in ours)
        errors = [each["error"] for each in theirs.values() if "error" in each]
        line: dict[str, Any] = {"peer": peer, "model": model, "how": "random", "folds": len(both)}
        if both:
            rows = np.concatenate([np.flatnonzero(tested == number) for number in both])
            own, other = (
                np.concatenate([np.load(kept.scores(Cell(part, number, name, _SEED, {}))) for number in both])
                for part, name in (("random", model), (AT_RANDOM_PART, f"{peer}-{model}"))
            )
            line |= compared(labels[rows], users[rows], own, other) | {"versions": theirs[both[0]]["versions"]}
        elif errors:
            line["error"] = errors[0]
        else:
            continue
        found.append(line)
    return found


def compared(labels: NDArray[Any], users: NDArray[Any], ours: NDArray[Any], theirs: NDArray[Any]) -> dict[str, Any]:
    """Return both AUCs, and ours less the peer's with its interval."""
    less = difference(labels, users, ours, theirs)
    return {"auc": auc(labels, theirs), "ours": auc(labels, ours), "less_peer": less}


def beside_peers(
    bench: PeerBench, context: ContextTable, training_set: Path, at_random: Sequence[Record]
) -> list[dict[str, Any]]:
    """Return all lines of the summary: models of ids and attributes at random, models of a history by time."""
    lines = peer_lines(bench.kept, context, at_random, peers_at_random(bench, context))
    rows = by_time(context, training_set)
    return lines if rows is None else lines + _lines_by_time(bench, rows)


@dataclass(frozen=True, slots=True)
class RowsByTime:
    """The rows of a training set in its own order: ids and attributes, and each user's last items before the row."""

    declared: GivenDataset
    tables: Mapping[str, pa.Table]
    """TRAIN, VALID and TEST → label and fields."""
    sha256: str


def by_time(context: ContextTable, training_set: Path) -> RowsByTime | None:
    """Return a training set's rows; None where its features have no last items."""
    try:
        history = {split: _history(training_set, split) for split in (TRAIN, VALID, TEST)}
    except KeyError:
        return None
    field = DeclaredField(name=HISTORY, type="sequence", shares=ITEM_ID.name, of="user")
    declared = context.declared.model_copy(update={"fields": (*context.declared.fields, field)})
    tables, begin = {}, 0
    for split, items in history.items():
        rows = context.rows.slice(begin, len(items))
        tables[split] = rows.append_column(HISTORY, items)
        begin += len(items)
    return RowsByTime(declared, tables, hashlib.sha256(f"{context.sha256} {HISTORY}".encode()).hexdigest())


def _history(training_set: Path, split: str) -> pa.ChunkedArray:
    """Return list<string> `[rows]`; KeyError where there is none."""
    path = training_set / f"{split}.parquet"
    if HISTORY not in pq.read_schema(path).names:
        raise KeyError(HISTORY)
    return pq.read_table(path, columns=[HISTORY], partitioning=None)[HISTORY].cast(pa.list_(pa.string()))


def _lines_by_time(bench: PeerBench, rows: RowsByTime) -> list[dict[str, Any]]:
    def folder() -> Path:
        path = bench.folder / f"{rows.sha256[:12]}-time"
        if not (path / DECLARATION).exists():
            write_given_split(rows.declared, rows.tables, path)
        return path

    test = rows.tables[TEST]
    labels = test[rows.declared.label].to_numpy().astype(np.int64)
    users = np.unique(test[rows.declared.group].to_numpy().astype(str), return_inverse=True)[1]
    found = []
    for peer, models in BY_TIME.items():
        for model in (name for name in models if name in bench.names):
            job = Job(BY_TIME_PART, 1, peer, model, peer_settings(model), rows.sha256)
            theirs = _fitted(bench, job, folder)
            own = _ours_by_time(bench, model, rows)
            if theirs is None or own is None:
                continue
            line: dict[str, Any] = {"peer": peer, "model": model, "how": "time", "folds": 1}
            failed = theirs.get("error") or own.get("error")
            if failed:
                found.append(line | {"error": failed})
                continue
            cells = (_cell_by_time(model, rows), job.cell)
            scores = [np.load(bench.kept.scores(cell)) for cell in cells]
            found.append(line | compared(labels, users, *scores) | {"versions": theirs["versions"]})
    return found


def _cell_by_time(model: str, rows: RowsByTime) -> Cell:
    code = code_sha256("models.benchmark.measure", ranking_model(model).__module__)
    return Cell(
        OURS_BY_TIME_PART, 1, model, _SEED, {"configs": peer_settings(model), "data": rows.sha256, "code": code}
    )


def _ours_by_time(bench: PeerBench, model: str, rows: RowsByTime) -> dict[str, Any] | None:
    """Return the record of our model on the peers' rows, of the same search."""
    cell = _cell_by_time(model, rows)
    return bench.made(cell, lambda: searched(bench.kept, cell, options(model), given_split(rows.declared, rows.tables)))
