"""What the benchmark of models keeps: a file for each fit, by a hash of all that its figures follow from."""

from __future__ import annotations

import ast
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_repo.contracts.places import REPOSITORY
from feature_repo.contracts.publishing import CorruptRecordError, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_OURS = {"models", "feature_repo", "serving"}
_LIBRARIES = ("tensorflow", "keras", "numpy", "lightgbm")


@dataclass(frozen=True, slots=True)
class Cell:
    """One model, fitted once to one division of rows."""

    part: str
    """What is measured: "random", "time", "ranker", or the lists of either of the last two."""
    number: int
    """The fold, or the origin from the latest on; from 1."""
    model: str
    seed: int
    basis: Mapping[str, object]
    """What the figures follow from, in JSON's types: configs, data, code."""
    libraries: tuple[str, ...] = _LIBRARIES
    """Those of this environment that the figures follow from."""

    @property
    def name(self) -> str:
        """Its file's name without ending, which the next figures of the same cell have, too."""
        return f"{self.part}-{self.number}-{self.model}-{self.seed}"

    @property
    def key(self) -> str:
        """A hash of the basis and the versions of libraries."""
        versions = {library: version(library) for library in self.libraries}
        whole = {"name": self.name, "basis": dict(self.basis), "versions": versions}
        return hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Kept:
    """The folder of the cells."""

    folder: Path

    def read(self, cell: Cell) -> dict[str, Any] | None:
        """Return a finished cell's record; None where there is none, or its figures follow from something else."""
        path = self.folder / f"{cell.name}.json"
        if not path.is_file():
            return None
        try:
            record: dict[str, Any] = read_json(path)
        except CorruptRecordError:
            return None
        return record if record.get("key") == cell.key else None

    def finished(self, cell: Cell, make: Callable[[], Mapping[str, Any]]) -> tuple[dict[str, Any], bool]:
        """Return a cell's record, made now unless it is there, and whether it was."""
        found = self.read(cell)
        if found is not None:
            return found, True
        record = {"key": cell.key, "part": cell.part, "number": cell.number, "model": cell.model, "seed": cell.seed}
        record |= make()
        write_json(self.folder / f"{cell.name}.json", record)
        return record, False

    def forget(self, cell: Cell) -> None:
        """Have a cell measured again: what it left behind is gone."""
        (self.folder / f"{cell.name}.json").unlink(missing_ok=True)

    def scores(self, cell: Cell) -> Path:
        """Return where a cell keeps the scores of its test rows, `[rows]`."""
        return self.folder / f"{cell.name}.npy"

    def keep_scores(self, cell: Cell, scores: NDArray[Any]) -> None:
        """Write them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        np.save(self.scores(cell), scores.astype(np.float32))

    def saved_model(self, cell: Cell) -> Path:
        """Return where a cell keeps its model."""
        return self.folder / f"{cell.name}-saved-model"


@cache
def code_sha256(*modules: str) -> str:
    """Return a hash of modules of this project and of all of it that they import."""
    digest = hashlib.sha256()
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        path = _file(module)
        if path is None or module in found:
            continue
        found[module] = path
        waiting += _imported(ast.parse(path.read_text(encoding="utf-8")))
    for module in sorted(found):
        digest.update(module.encode() + b"\0" + found[module].read_bytes() + b"\0")
    return digest.hexdigest()


def _file(module: str) -> Path | None:
    if module.partition(".")[0] not in _OURS:
        return None
    stem = REPOSITORY.joinpath(*module.split("."))
    return next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()), None)


def _imported(tree: ast.AST) -> Iterator[str]:
    """Yield the names of modules that are imported when the code runs; those for type checkers are passed over."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from _imported(node)
