"""The ranker that the demo promoted, and requests for it, cut to any number of rows."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_repo.contracts.manifests import Release, TrainingSet, Verdict
from feature_repo.contracts.places import MANIFEST, Namespace, Serving
from feature_repo.contracts.publishing import read_json, write_json
from feature_repo.contracts.schemas import Schema
from feature_repo.contracts.signatures import (
    ONE_USER_SIGNATURE,
    RANKING_MODEL,
    ROWS_SIGNATURE,
    SIGNATURE_ARTIFACT,
    Scope,
    part_signature,
)
from infra.bench.errors import BenchError
from infra.local.grpc_example import raw_input

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

SIGNATURES = (ONE_USER_SIGNATURE, ROWS_SIGNATURE)


@dataclass(frozen=True, slots=True)
class Ranker:
    """A promoted model: its SavedModel, and the files of its run that a rollout reads."""

    release: Release
    saved_model: Path
    golden: Path
    training_set: Path
    verdict: Path

    def inputs(self, signature_name: str, rows: int) -> dict[str, NDArray[Any]]:
        """Return real inputs of `rows` candidates: the golden request's, repeated or cut.

        A user's columns have one row in `one_user` and `rows` rows in `serving_default`.
        """
        golden: Any = read_json(self.golden)["requests"]
        request = next(each for each in golden if each["signature_name"] == signature_name)
        schema = Schema.from_json(TrainingSet.read(self.training_set).schema)
        signature = part_signature(self.release.ranker, schema)
        users = (
            {column.name for column in signature.scoped(Scope.USER)} if signature_name == ONE_USER_SIGNATURE else set()
        )
        arrays: dict[str, NDArray[Any]] = {}
        for column in signature.input_columns:
            values = raw_input(request["inputs"][column.name])
            arrays[column.name] = values if column.name in users else np.resize(values, (rows, *values.shape[1:]))
        return arrays

    def copy_run(self, folder: Path, run_id: str) -> None:
        """Lay out the run's artifacts as the model plane logs them, for the run `run_id`, on which the verdict is."""
        (folder / "gates").mkdir(parents=True)
        shutil.copyfile(self.golden, folder / "golden.json")
        shutil.copyfile(self.training_set, folder / "training_set.json")
        if self.release.ranker.signature:  # releases of before signatures were stored have none, nor have their runs
            write_json(folder / SIGNATURE_ARTIFACT, self.release.ranker.signature)
        dataclasses.replace(Verdict.read(self.verdict), run_id=run_id).write(folder / "gates" / "verdict.json")


def promoted_ranker(state: Path, namespace: str) -> Ranker:
    """Return the ranker in force.

    Raises:
        BenchError: Nothing was promoted, or its files are gone.
    """
    place = Namespace(state, namespace)
    serving = Serving(state)
    try:
        release = Release.read(serving.current_release(namespace))
    except FileNotFoundError as error:
        msg = f"namespace {namespace}: expected a promoted model in {state}, there is none; run make demo first"
        raise BenchError(msg) from error
    run = _run_folder(place, release.ranker.run_id)
    ranker = Ranker(
        release,
        serving.model(namespace, RANKING_MODEL) / release.ranker.version,
        run / "golden.json",
        place.training_sets / release.ranker.data["training_set_id"] / MANIFEST,
        run / "verdict.json",
    )
    for path in (ranker.saved_model, ranker.golden, ranker.training_set, ranker.verdict):
        if not path.exists():
            msg = f"namespace {namespace}: version {release.ranker.version} lacks {path}; run make demo again"
            raise BenchError(msg)
    return ranker


def _run_folder(place: Namespace, run_id: str) -> Path:
    for path in sorted(place.candidates.glob("*/verdict.json")):
        record: Mapping[str, Any] = read_json(path)
        if record.get("run_id") == run_id:
            return path.parent
    msg = f"namespace {place.name}: no training run in {place.candidates} has the run id {run_id}; run make demo again"
    raise BenchError(msg)
