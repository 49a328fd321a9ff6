"""Every class as a ranker of lists: what recall offered is learned from, and put in order.

questions of the past ──▶ what recall offered then ──▶ training set of kind LISTS ──▶ each class, fitted to it
questions that validate ──▶ the same candidates for all ──▶ each model's own order ──▶ NDCG@10
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import keras

from feature_repo.contracts.exit_codes import ExitCode
from feature_repo.contracts.manifests import TrainingKind
from feature_repo.contracts.objectives import OBJECTIVES
from feature_repo.contracts.planes import JobFailedError
from feature_repo.contracts.publishing import read_json
from models.benchmark.boosted import Boosted
from models.benchmark.job import features_of_history
from models.dataset import TRAIN, VALID, read_dataset
from models.export import export
from models.ranking.mlp import MLPConfig
from models.specs.spec import Spec, read_specs
from models.training.fit import fit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from models.benchmark.preparation import Prepared
    from models.dataset import Dataset

_REFERENCE = "lists"
"""The spec of `models/specs/ranking.yaml` whose features, objective and fit every class has as a ranker of lists."""
_SEQUENCES = {"ranking_sequences": "true"}


@dataclass(frozen=True, slots=True)
class Offered:
    """What recall offered at one origin, and before it."""

    questions: str
    """Their id: those that validate, and those of training moments."""
    candidates: str
    """Its id; empty where the log is too short for questions of training moments."""
    rows: str
    """The training set of it; empty as above."""

    @property
    def arguments(self) -> tuple[str, ...]:
        """What `serving.lists compare` is told."""
        return ("--questions", self.questions, *(("--candidates", self.candidates) if self.candidates else ()))


def offer(prepared: Prepared, training_set: str, cutoff: str, say: Callable[[str], None]) -> Offered:
    """Ask recall what it would have offered, at the origin of a training set and before it.

    Raises:
        JobFailedError: A job failed by more than a short log.
    """
    asked = prepared.run("pipelines", "questions", "--cutoff", cutoff, "--training-set", training_set)
    questions = str(asked["questions"])
    try:
        candidates = str(prepared.run("serving.lists", "candidates", "--questions", questions)["candidates"])
        of = ("--kind", TrainingKind.LISTS.value, "--candidates", candidates)
        rows = prepared.run("pipelines", "training-set", "--cutoff", cutoff, *of, **_SEQUENCES)
    except JobFailedError as error:
        if error.status != ExitCode.REJECTED:
            raise
        say(f"nothing to learn lists from: {error}")
        return Offered(questions, "", "")
    return Offered(questions, candidates, str(rows["training_set"]))


def list_specs(names: Sequence[str]) -> dict[str, Spec]:
    """Return a spec of each class as a ranker of lists, and the shipped ones, by name.

    The classes keep their own configs, but for how they are fitted; a spec that is shipped under a class's name wins.
    """
    shipped = {spec.name: spec for spec in read_specs("ranking").specs if spec.rows is TrainingKind.LISTS}
    reference = shipped[_REFERENCE]
    fitted = {"fit": MLPConfig().fit.model_dump(mode="json")}
    classes = {
        name: Spec(
            name=name,
            features=(*reference.features, *features_of_history(name)),
            rows=TrainingKind.LISTS,
            objective=reference.objective,
            config=fitted if "fit" in Spec(name=name).model().config.model_dump() else {},
        )
        for name in names
        if name != Boosted.name
    }
    return classes | shipped


def fit_ranker(prepared: Prepared, offered: Offered, spec: Spec, seed: int, place: Path) -> float:
    """Fit a spec to what recall offered, and export it to `place`; return seconds of the fit.

    Raises:
        JobError: The class cannot be fitted to such rows.
    """
    keras.backend.clear_session()  # of the fit before, which a long benchmark would keep in memory
    dataset = _read(prepared.place.training_sets / offered.rows, spec.features, spec.objective)
    began = time.perf_counter()
    fitted = fit(spec.model(), dataset, seed)
    seconds = time.perf_counter() - began
    shutil.rmtree(place, ignore_errors=True)
    export(fitted, dataset.signature, place)
    return seconds


@cache
def _read(directory: Path, features: tuple[str, ...], objective: str) -> Dataset:
    return read_dataset(directory, (TRAIN, VALID), features, OBJECTIVES[objective], TrainingKind.LISTS)


def order_of(prepared: Prepared, offered: Offered, model: Mapping[str, str], out: Path) -> dict[str, Any]:
    """Return what a model's own order of the candidates is worth, with nothing of recall's mixed in.

    Args:
        prepared: The data.
        offered: Whose questions are asked.
        model: Its `name`, its `saved_model`'s folder and the id of its `training_set`.
        out: Where the job's record goes.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    given = (*offered.arguments, "--models", json.dumps([dict(model)]), "--out", str(out))
    prepared.run("serving.lists", "compare", *given)
    record: Any = read_json(out)
    own = record["lists"].get(model["name"])
    if own is None:
        return {"error": "; ".join(record["undefined"].values())}
    alone = next((each["ndcg_at_10"] for each in own["tried"] if not each["share"]), own["ndcg_at_10"])
    return {
        "ndcg_at_10": alone,
        "users": record["users"],
        "best_simple": record["best_simple"],
        "unranked": record["unranked"]["ndcg_at_10"],
    }
