"""The records by which everything switches. Written whole, read whole, never edited.

source → [training set] → candidates, [verdict] → [release]; features → [online snapshot].
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast, get_type_hints

from feature_repo.contracts.publishing import WRITE_ANEW, CorruptRecordError, read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path


class _Record:
    """Read and write a flat frozen dataclass of JSON values as one file.

    Records outlive the code that wrote them. A reader passes over fields that it does not know, and takes the default
    of one that is missing; so a field that decides scores has no default. Each record carries its `format`, 0 where it
    carries none, which whoever changes the meaning of a field raises.
    """

    FORMAT: ClassVar[int] = 1

    def write(self, path: Path) -> None:
        """Write the record to `path`, whole or not at all."""
        write_json(path, {"format": self.FORMAT, **dataclasses.asdict(cast("Any", self))})

    @classmethod
    def read(cls, path: Path, remedy: str = WRITE_ANEW) -> Self:
        """Read what `write` wrote; `remedy` says what to do about a file that is something else.

        Raises:
            CorruptRecordError: It is; the message names the file, the field that does not fit, and the remedy.
            FileNotFoundError: There is none.
        """
        record = read_json(path, remedy)
        written = record.get("format", 0)
        if type(written) is not int or not 0 <= written <= cls.FORMAT:
            msg = (
                f"{path}: field format: expected 0 to {cls.FORMAT}, received {written!r}; use the code that wrote it, "
                f"or {remedy}"
            )
            raise CorruptRecordError(msg)
        fields = {field.name: field for field in dataclasses.fields(cast("Any", cls))}
        required = {name for name, field in fields.items() if _has_no_default(field)}
        if missing := sorted(required - record.keys()):
            msg = f"{path}: not a {cls.__name__}: missing fields {missing}; {remedy}"
            raise CorruptRecordError(msg)
        hints = get_type_hints(cls)
        values: dict[str, Any] = {}
        for name in fields.keys() & record.keys():
            value, hint = record[name], hints[name]
            kind = getattr(hint, "__origin__", hint)
            if isinstance(kind, type) and issubclass(kind, StrEnum):
                if value not in list(kind):
                    msg = f"{path}: field {name}: expected one of {[*map(str, kind)]}, received {value!r}; {remedy}"
                    raise CorruptRecordError(msg)
                value = kind(str(value))
            elif kind is float and isinstance(value, int):
                value = float(value)
            elif not isinstance(value, kind):
                msg = f"{path}: field {name}: expected {kind.__name__}, received {value!r}; {remedy}"
                raise CorruptRecordError(msg)
            values[name] = value
        return cls(**values)


def _has_no_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


class TrainingKind(StrEnum):
    """What a training set is for, and so what its rows are."""

    RANKING = "ranking"
    """Events with labels of both classes."""
    RETRIEVAL = "retrieval"
    """Positive events alone: which item came next, given what was known of the user strictly before."""


@dataclass(frozen=True, slots=True)
class TrainingSet(_Record):
    """A training set: rows in time order, joined to features strictly before each label, and the splits it owns.

    Its directory holds this record as `manifest.json`, the files of `TRAINING_FILES`, and `transforms.json`.
    """

    kind: TrainingKind
    training_set_id: str
    """Names the content: equal inputs and settings give an equal id."""
    namespace: str
    schema: dict[str, Any]
    """The data set's (`contracts.schemas.Schema.to_json`), of which features and inputs follow."""
    cutoff: str
    train_end: str
    """The first moment that is not in train (ISO 8601, UTC). Rows of one second are never parted."""
    valid_end: str
    label_min_value: float
    """label = 1 where the event's value is at least this."""
    prior_mean: float
    """Mean value of the train rows, for smoothing."""
    refresh_hours: int
    """How often the online store is taken to be refreshed, for the test rows 'as of the last refresh'."""
    feature_service: str
    feature_service_hash: str
    views: dict[str, str]
    """Feature group → feature view name."""
    feature_hashes: dict[str, str]
    """Feature → hash of its definition."""
    rows: dict[str, int]
    """File stem → rows."""
    checksums: dict[str, str]
    """File name → SHA-256 of its canonical content."""
    sources: dict[str, str]
    """Dataset or feature view → checksum over the partitions that were read."""
    item_embeddings: str
    """The snapshot of the same cutoff, of the first kind that is fitted: a path relative to the namespace's folder."""
    item_embeddings_sha256: str


TRAINING_FILES = ("train.parquet", "valid.parquet", "test.parquet", "test_as_of_refresh.parquet")
"""The last has the test rows, in the same order, with the features that the online store would have had."""
TRANSFORMS_FILE = "transforms.json"
"""{"version": 2, "vocabularies": {name: [term, ...]}, "columns": {column: {"encoding": ..., parameters}}}.

Fitted on train rows only. Terms are in falling frequency, ties by name; the index of the first term in the model is 2
(0 missing, 1 unknown). A column has its `Column.encoding_definition` and what was fitted after its curve: mean and std
of STANDARD (population), min and max of MIN_MAX, median and iqr of ROBUST, boundaries of QUANTILES."""
TRANSFORMS_VERSION = 2
"""Raised by whoever changes the file's form or what its figures mean; a reader refuses any other."""


class Decision(StrEnum):
    """What the gates say of a candidate."""

    PROMOTE = "promote"
    TIE = "tie"
    """No gate failed, but nothing shows that the candidate is better, or one is undecided: the champion stays."""
    HOLD = "hold"
    """Every gate passed, by more than anybody would believe: a person looks first, and approves or not."""
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class Verdict(_Record):
    """What the gates decided about one registered version, and why."""

    namespace: str
    model: str
    version: str
    run_id: str
    decision: Decision
    reason: str
    """One sentence for a person."""
    champion_version: str
    """The version it was compared with; empty on the first run."""
    gates: list[dict[str, Any]]
    """Each gate: name, figure, threshold, verdict ('pass', 'fail', 'undecided', 'not applicable'), and details."""


@dataclass(frozen=True, slots=True)
class OnlineSnapshot(_Record):
    """What the online side serves features from: Redis, and the catalogue that lies in the recommender's memory."""

    namespace: str
    schema: dict[str, Any]
    """The data set's, as in `TrainingSet`."""
    cutoff: str
    feast_project: str
    views: dict[str, str]
    catalogue: str
    """Path, relative to the namespace's folder, of the items with title, genres and latest item features."""
    catalogue_sha256: str
    item_embeddings: dict[str, str]
    """Kind → its snapshot's path, relative to the namespace's folder."""
    item_embeddings_sha256: dict[str, str]
    """Kind → SHA-256 of that file."""
    users: int
    items: int


@dataclass(frozen=True, slots=True)
class Questions(_Record):
    """Questions at one or several origins of a log (`contracts.questions`). Equal inputs give an equal id."""

    questions_id: str
    namespace: str
    schema: dict[str, Any]
    """The data set's, as in `TrainingSet`."""
    cutoff: str
    """Exclusive end of the events that were looked at."""
    training_set_id: str
    """The training set whose model is asked; empty where the origins do not follow from one."""
    days: int
    """How many days after an origin hold its answers, where the log goes on for so long."""
    origins: list[dict[str, Any]]
    """In order of time, each: `origin`, `end` (of its answers, exclusive), `role`, `folder`, and what was counted:
    `users`, `asked` (all, or a sample), `answers`, `new_items` (items among the answers that nobody had before), and
    `repeats` (share of the likes after the origin that are left out because the user had the item before)."""
    note: str
    """Why there are no origins, or fewer than were asked for; empty where there is nothing to say."""
    checksums: dict[str, str]
    """File, relative to the folder → SHA-256 of its canonical content."""
    sources: dict[str, str]
    """Dataset or feature view → checksum over the partitions that were read."""


@dataclass(frozen=True, slots=True)
class Release(_Record):
    """One immutable record that ties together everything a served model needs."""

    namespace: str
    model: str
    version: str
    run_id: str
    saved_model_sha256: str
    feature_service: str
    feature_service_hash: str
    views: dict[str, str]
    inputs: list[str]
    """The signature's inputs, in order."""
    training_set_id: str
    train_end: str
    cutoff: str
    item_embeddings: str
    item_embeddings_sha256: str
    verdict: str
    """Why it was promoted."""
    previous_version: str
    """What a rollback goes back to; empty for the first release."""

    def absent_views(self, online: OnlineSnapshot) -> dict[str, str]:
        """Return feature group → feature view of what it reads and `online` has not, or has by another definition.

        A recommender ranks nothing while there is one: a model never meets features that it was not trained on.
        """
        return {group: view for group, view in self.views.items() if online.views.get(group) != view}


@dataclass(frozen=True, slots=True)
class ShadowSummary(_Record):
    """What one recommender saw of a canary to which it sent a share of its requests, beside the version in force.

    The lists have one figure for each of the latest requests that both answered.
    """

    namespace: str
    model: str
    version: str
    stable_version: str
    requests: int
    """Sent to the canary, whatever came of them."""
    errors: int
    """Refused, or answered with something else than finite scores."""
    timeouts: int
    """Not answered in time, or not at all: the model server was away or overloaded."""
    left_out: int
    """Chosen, but not sent, because too many were in flight."""
    last_error: str
    canary_ms: list[float]
    stable_ms: list[float]
    mean_differences: list[float]
    """Mean absolute difference of the two scores, over a request's items."""
    max_differences: list[float]
    updated: str
    """ISO 8601, UTC."""
