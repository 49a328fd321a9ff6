"""The working folder of one training run: what lies where, from training to verdict."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feature_repo.contracts.manifests import Refit, TrainingKind
from feature_repo.contracts.publishing import read_json, remove_abandoned
from feature_repo.locks import exclusive
from models.errors import CandidateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from feature_repo.contracts.places import Namespace
    from models.specs.spec import Spec

JUDGEMENT = "judgement"
"""The part that `choose`, `refit`, `evaluate` and `gate` write."""
TAKEN = frozenset({JUDGEMENT, "plots"})
"""Names in the folder that no spec may have."""
_RUN_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")


def check_run_key(run_key: str) -> str:
    """Return a run key, which becomes a folder and part of a search, or raise CandidateError with what is allowed."""
    if not _RUN_KEY.fullmatch(run_key):
        msg = f"run key {run_key!r}: expected letters, digits and . _ + - (200 at most), as Airflow passes it"
        raise CandidateError(msg)
    return run_key


@dataclass(frozen=True, slots=True)
class CandidateFolder:
    """`candidates/<run key>/`."""

    namespace: Namespace
    run_key: str

    def __post_init__(self) -> None:
        """Refuse a key that is no plain name."""
        check_run_key(self.run_key)

    @property
    def root(self) -> Path:
        """The folder."""
        return self.namespace.candidates / self.run_key

    @contextmanager
    def held(self, part: str) -> Iterator[None]:
        """Let one job at a time write a part of the folder: a model, or JUDGEMENT; what killed jobs left goes first.

        Raises:
            LockedError: Another job does, such as an earlier try that outlived its task.
        """
        lock = self.namespace.locks / f"candidate-{self.run_key}-{part}.lock"
        with exclusive(lock, f"{part} of run key {self.run_key}"):
            for folder in self.namespace.candidates.glob("*/"):
                remove_abandoned(folder)
            yield

    def model(self, name: str) -> Path:
        """`saved_model/` and `run.json` of one spec; written once."""
        return self.root / name

    def saved_model(self, name: str) -> Path:
        """The SavedModel of one spec."""
        return self.model(name) / "saved_model"

    @property
    def choice(self) -> Path:
        """Which spec won on the validation rows."""
        return self.root / "choice.json"

    @property
    def policy(self) -> Path:
        """Quotas and re-ranking of the winner's lists, as `contracts.list_policy` has them."""
        return self.root / "policy.json"

    @property
    def refit(self) -> Path:
        """The Refit: whether the champion's spec was fitted again, and where that fit lies."""
        return self.root / "refit.json"

    @property
    def evaluation(self) -> Path:
        """The table of metrics."""
        return self.root / "evaluation.json"

    @property
    def scores(self) -> Path:
        """Labels, users and every model's scores of the test rows, for the gates' intervals."""
        return self.root / "evaluation_scores.npz"

    @property
    def golden(self) -> Path:
        """Requests with the scores that every server of this model must give."""
        return self.root / "golden.json"

    @property
    def serving_check(self) -> Path:
        """What the model server's check command measured."""
        return self.root / "serving_check.json"

    @property
    def lists(self) -> Path:
        """What `python -m serving.lists measure` measured: the lists that the candidate's users would be shown."""
        return self.root / "lists.json"

    @property
    def verdict(self) -> Path:
        """The Verdict."""
        return self.root / "verdict.json"

    @property
    def plots(self) -> Path:
        """ROC and calibration plots."""
        return self.root / "plots"

    def refit_of(self, version: str, run_id: str) -> Refit | None:
        """Return what `refit` wrote of a champion; None where it wrote nothing, or that of another."""
        if not self.refit.is_file():
            return None
        record = Refit.read(self.refit)
        return record if record.is_of(version, run_id) else None

    def run(self, name: str) -> dict[str, Any]:
        """Return `run.json` of one spec; CandidateError says which job writes it."""
        path = self.model(name) / "run.json"
        if not path.is_file():
            msg = f"{path}: expected what `python -m models train --spec {name} --run-key {self.run_key}` writes"
            raise CandidateError(msg)
        return read_json(path)

    def chosen(self, training_set_id: str) -> dict[str, Any]:
        """Return `choice.json`; CandidateError if there is none, or it was made on another training set."""
        if not self.choice.is_file():
            msg = f"{self.choice}: expected what `python -m models choose --run-key {self.run_key}` writes"
            raise CandidateError(msg)
        return self._of_training_set(read_json(self.choice), "choice", training_set_id)

    def run_of(self, name: str, training_set_id: str) -> dict[str, Any]:
        """Return `run.json` of one spec; CandidateError if it was trained on another training set."""
        return self._of_training_set(self.run(name), name, training_set_id)

    def _of_training_set(self, record: dict[str, Any], what: str, training_set_id: str) -> dict[str, Any]:
        if record.get("training_set_id") != training_set_id:
            msg = (
                f"run key {self.run_key}: its {what} is of training set {record.get('training_set_id')!r}, received "
                f"{training_set_id!r}; a run key names one training run: use another"
            )
            raise CandidateError(msg)
        return record


def training_set_of(spec: Spec, training_set_id: str, lists_id: str) -> str:
    """Return the id of the training set that a spec learns from, of a run that has these two; empty if it has none."""
    return lists_id if spec.rows is TrainingKind.LISTS else training_set_id


def check_same_spec(run_key: str, run: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
    """Raise CandidateError unless `run` was trained by `spec` (`Spec.record`)."""
    if run.get("spec") != spec:
        msg = (
            f"run key {run_key}: its {spec['name']} was trained by {run.get('spec')}, received {spec}; a run key names "
            "one training run: use another"
        )
        raise CandidateError(msg)
