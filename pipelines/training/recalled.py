"""What recall offered for the questions of the past, found and checked: `contracts.candidates`, `contracts.questions`.

Nothing of it may know the answers. The records say where each origin's answers end: those of TRAIN origins before
VALIDATION begins, those of VALIDATION origins before TEST does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.candidates import CANDIDATES
from feature_repo.contracts.channels import channels
from feature_repo.contracts.features import declared
from feature_repo.contracts.intervals import format_cutoff
from feature_repo.contracts.manifests import Candidates, OnlineSnapshot, PartKind, Questions
from feature_repo.contracts.places import MANIFEST
from feature_repo.contracts.publishing import CorruptRecordError, file_sha256
from feature_repo.contracts.questions import ANSWERS, ANSWERS_FILE, QUESTIONS, QUESTIONS_FILE, SNAPSHOT_FILE, Role
from pipelines.io.arrow import arrow_schema
from pipelines.training.errors import CandidatesError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from feature_repo.contracts.datasets import Dataset
    from feature_repo.contracts.places import Namespace
    from feature_repo.contracts.schemas import Schema

_R = TypeVar("_R", Candidates, Questions)
SPLITS = {Role.TRAIN: "train", Role.VALIDATION: "valid", Role.TEST: "test"}
"""What the rows of an origin are for."""


@dataclass(frozen=True, slots=True)
class RecalledOrigin:
    """A moment at which recall was asked, and the files of what was asked, liked and offered."""

    moment: datetime
    end: datetime
    """Exclusive end of its answers."""
    role: Role
    users: int
    """Who is asked, each once at the moment itself."""
    questions: Path
    """Rows of QUESTIONS."""
    answers: Path
    """Rows of ANSWERS."""
    candidates: Path
    """Rows of CANDIDATES."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """Candidates with the questions that they are of, every file checked against its record."""

    candidates_id: str
    origins: tuple[RecalledOrigin, ...]
    """Those that have questions, in order of time."""

    def of(self, role: Role) -> tuple[RecalledOrigin, ...]:
        """Return the origins of a role."""
        return tuple(each for each in self.origins if each.role is role)


def find_recalled(place: Namespace, schema: Schema, cutoff: datetime, candidates_id: str) -> Recalled:
    """Return the candidates of an id.

    Args:
        place: The namespace, whose they have to be.
        schema: The data set's.
        cutoff: The questions may know no events from then on.
        candidates_id: The folder's name below `recalled/`.

    Raises:
        CandidatesError: They, or the questions that they answer, are gone, damaged, of another namespace or schema, of
            a later cutoff, said by channels of other definitions; or the origins of one role lie among another's
            answers.
    """
    folder = place.recalled / candidates_id
    again = f"run `python -m serving.lists candidates --namespace {place.name} --questions ID`"
    record = _record(Candidates, folder, f"candidates {candidates_id}", again)
    asked_again = (
        f"run `python -m pipelines questions --namespace {place.name} --cutoff {format_cutoff(cutoff)} "
        "--training-set ID`, then `python -m serving.lists candidates` with its questions"
    )
    questions_folder = place.questions / record.questions_id
    questions = _record(
        Questions, questions_folder, f"questions {record.questions_id} of candidates {candidates_id}", asked_again
    )
    of_candidates, of_questions = f"candidates {candidates_id}", f"questions {record.questions_id}"
    _expect(f"{of_candidates}: id", candidates_id, record.candidates_id, again)
    _expect(f"{of_questions}: id", record.questions_id, questions.questions_id, asked_again)
    for subject, found in ((of_candidates, record), (of_questions, questions)):
        _expect(f"{subject}: namespace", place.name, found.namespace, asked_again)
        _expect(f"{subject}: data set's schema", schema.to_json(), found.schema, asked_again)
    if datetime.fromisoformat(questions.cutoff) > cutoff:
        msg = (
            f"{of_candidates}: expected questions about events before {format_cutoff(cutoff)}, received those of the "
            f"cutoff {questions.cutoff}: they know later events; {asked_again}"
        )
        raise CandidatesError(msg)
    _check_definitions(questions_folder, questions, schema, asked_again)
    origins = tuple(
        RecalledOrigin(
            datetime.fromisoformat(each["origin"]),
            datetime.fromisoformat(each["end"]),
            Role(each["role"]),
            int(each["asked"]),
            _file(questions_folder, f"{each['folder']}/{QUESTIONS_FILE}", questions.checksums, QUESTIONS, asked_again),
            _file(questions_folder, f"{each['folder']}/{ANSWERS_FILE}", questions.checksums, ANSWERS, asked_again),
            _file(folder, f"{each['folder']}.parquet", record.checksums, CANDIDATES, again),
        )
        for each in questions.origins
        if each["asked"]
    )
    recalled = Recalled(candidates_id, origins)
    _check_order(recalled, of_questions, asked_again)
    return recalled


def _record(kind: type[_R], folder: Path, subject: str, remedy: str) -> _R:
    try:
        return kind.read(folder / MANIFEST, remedy)
    except FileNotFoundError as error:
        known = sorted(path.parent.name for path in folder.parent.glob(f"*/{MANIFEST}"))
        msg = f"{subject}: expected the record {folder / MANIFEST}, found none (there are {known}); {remedy}"
        raise CandidatesError(msg) from error
    except CorruptRecordError as error:
        raise CandidatesError(str(error)) from error


def _expect(subject: str, expected: object, received: object, remedy: str) -> None:
    if expected != received:
        msg = f"{subject}: expected {expected!r:.300}, received {received!r:.300}; {remedy}"
        raise CandidatesError(msg)


def _file(folder: Path, name: str, checksums: Mapping[str, Any], dataset: Dataset, remedy: str) -> Path:
    """Return a file that has the bytes of its record, and the columns of its dataset."""
    path = folder / name
    try:
        received = file_sha256(path)
        columns = pq.read_schema(path) if received == checksums.get(name) else pa.schema([])
    except (OSError, ValueError) as error:
        msg = f"{path}: expected the Parquet file that its manifest names ({error}); remove {folder}, then {remedy}"
        raise CandidatesError(msg) from error
    subject, again = str(path), f"remove {folder}, then {remedy}"
    _expect(f"{subject}: SHA-256", checksums.get(name), received, again)
    expected = arrow_schema(dataset)
    types = [(field.name, str(field.type)) for field in expected]
    _expect(f"{subject}: columns", types, [(field.name, str(field.type)) for field in columns], again)
    return path


def _check_definitions(folder: Path, questions: Questions, schema: Schema, remedy: str) -> None:
    """Refuse what channels of other definitions said: the training set would call it by the present ones."""
    expected = {name: channel.definition for name, channel in channels(schema).items()}
    for each in questions.origins:
        if not each["asked"]:
            continue
        path = folder / each["folder"] / SNAPSHOT_FILE
        try:
            snapshot = OnlineSnapshot.read(path, remedy)
        except (FileNotFoundError, CorruptRecordError) as error:
            msg = f"{path}: expected the snapshot that recall was asked with ({error}); {remedy}"
            raise CandidatesError(msg) from error
        fitted = snapshot.of_kind(PartKind.VECTORS) | snapshot.of_kind(PartKind.CHANNEL)
        for name in sorted(fitted.keys() & expected.keys()):
            received = fitted[name].data.get("definition", "")
            _expect(f"{path}: definition of the channel {name}", expected[name], received, remedy)
        views = {group.name: group.view_name for group in declared(schema).groups}
        _expect(f"{path}: feature views", views, snapshot.views, remedy)


def _check_order(recalled: Recalled, subject: str, remedy: str) -> None:
    """Refuse answers that are among what a later role is asked: whoever learns from them would know these."""
    for earlier, later in ((Role.TRAIN, Role.VALIDATION), (Role.VALIDATION, Role.TEST), (Role.TRAIN, Role.TEST)):
        end = max((each.end for each in recalled.of(earlier)), default=None)
        start = min((each.moment for each in recalled.of(later)), default=None)
        if end and start and end > start:
            msg = (
                f"{subject}: expected answers of {earlier} origins that end at or before the first {later} origin, "
                f"{format_cutoff(start)}, received some up to {format_cutoff(end)}; {remedy}"
            )
            raise CandidatesError(msg)
