"""The records by which everything switches. Written whole, read whole, never edited.

source → [training set] → candidates, [verdict] → [release]; features → [online snapshot].
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast, get_type_hints

from feature_repo.contracts.publishing import (
    WRITE_ANEW,
    CorruptRecordError,
    read_json,
    text_sha256,
    tree_sha256,
    write_json,
)
from feature_repo.contracts.signatures import RANKING_MODEL

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path


class _Fields:
    """Reads a frozen dataclass of JSON values, checked field by field."""

    NAMED: ClassVar[str] = ""
    """What errors call it, where that is not the class's name."""

    @classmethod
    def _of(cls, record: Mapping[str, object], source: str, remedy: str) -> Self:
        """Return what `record` says; `source` names its place, for errors.

        Raises:
            CorruptRecordError: A field is missing, or of another type.
        """
        fields = {field.name: field for field in dataclasses.fields(cast("Any", cls))}
        required = {name for name, field in fields.items() if _has_no_default(field)}
        if missing := sorted(required - record.keys()):
            msg = f"{source}: not a {cls.NAMED or cls.__name__}: missing fields {missing}; {remedy}"
            raise CorruptRecordError(msg)
        hints = get_type_hints(cls)
        return cls(
            **{
                name: _value(record[name], hints[name], f"{source}: field {name}", remedy)
                for name in fields.keys() & record.keys()
            }
        )


class _Record(_Fields):
    """Read and write a frozen dataclass of JSON values as one file.

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
        return cls._read_format(written, record, str(path), remedy)

    @classmethod
    def _read_format(cls, written: int, record: Mapping[str, object], source: str, remedy: str) -> Self:
        """Return what a record of the format `written` says; one kind overrides it that reads an earlier one."""
        del written
        return cls._of(record, source, remedy)


def _value(value: object, hint: Any, source: str, remedy: str) -> Any:  # noqa: ANN401 - as its hint says
    """Return a field's value as its type hint has it, or refuse it."""
    kind = getattr(hint, "__origin__", hint)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        if value not in list(kind):
            msg = f"{source}: expected one of {[*map(str, kind)]}, received {value!r}; {remedy}"
            raise CorruptRecordError(msg)
        return kind(str(value))
    if kind is float and isinstance(value, int):
        return float(value)
    if isinstance(kind, type) and issubclass(kind, _Fields):
        if not isinstance(value, dict):
            msg = f"{source}: expected a JSON object, received {value!r:.80}; {remedy}"
            raise CorruptRecordError(msg)
        return kind._of(value, source, remedy)  # noqa: SLF001 - of this module
    if not isinstance(value, kind):
        msg = f"{source}: expected {kind.__name__}, received {value!r}; {remedy}"
        raise CorruptRecordError(msg)
    of_values = getattr(hint, "__args__", ())[1:]
    if isinstance(value, dict) and of_values and isinstance(of_values[0], type) and issubclass(of_values[0], _Fields):
        return {name: _value(each, of_values[0], f"{source}: {name}", remedy) for name, each in value.items()}
    return value


def _has_no_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


class PartKind(StrEnum):
    """Whether a part is of a release or of a snapshot, and what it is."""

    RANKER = "ranker"
    TOWER = "tower"
    VOCABULARY = "vocabulary"
    QUOTAS = "quotas"
    RERANKING = "reranking"
    ARMS = "arms"
    CATALOGUE = "catalogue"
    VECTORS = "vectors"
    CHANNEL = "channel"
    VIEWS = "views"


MODEL_KINDS = frozenset({PartKind.RANKER, PartKind.TOWER})
"""Parts of a release that a model server serves, as `<namespace>.<part>`."""
FILE_KINDS = frozenset({PartKind.VOCABULARY, PartKind.QUOTAS, PartKind.RERANKING, PartKind.ARMS})
"""Parts of a release that are one file each."""
RELEASE_KINDS = MODEL_KINDS | FILE_KINDS
SNAPSHOT_KINDS = frozenset(PartKind) - RELEASE_KINDS


class Similarity(StrEnum):
    """How two vectors are compared."""

    COSINE = "cosine"
    """Of their directions alone; each has a length above 0."""
    INNER_PRODUCT = "inner_product"
    """Of directions and lengths, which may be 0; a product below 0 is as good as any other."""


_PART_DATA: dict[PartKind, dict[str, type]] = {
    PartKind.RANKER: {"views": dict, "training_set_id": str, "cutoff": str},
    PartKind.VECTORS: {"size": int, "similarity": str},
    PartKind.CHANNEL: {"definition": str, "table": str, "half_life_days": float},
    PartKind.VIEWS: {"views": dict},
}
"""What a part of a kind cannot be used without."""


@dataclass(frozen=True, slots=True)
class Part(_Fields):
    """One thing of a release or of a snapshot, which is replaced or kept as a whole."""

    name: str
    kind: PartKind
    version: str
    """Of a release's part a number; of a snapshot's the cutoff that it is of."""
    checksum: str
    """SHA-256 of its file, of a SavedModel as it was registered, or of what `data` says where it has no file."""
    run_id: str = ""
    """The MLflow run that it comes from; empty where there is none."""
    path: str = ""
    """Its file: of a snapshot's part relative to the namespace's folder, of a release's to the version's folder. Empty
    for what has no file of its own."""
    signature: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What a model takes and returns, as `contracts.signatures` has it; empty for what is no model, and for models from
    before signatures were stored."""
    needs: dict[str, str] = dataclasses.field(default_factory=dict)
    """Name of a part of the other side (a release's part needs a snapshot's, and the other way round) → the checksum
    that it must have; empty for any. Vectors are stamped with their tower by it."""
    data: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What it is made of, by kind. RANKER: `views` (feature group → feature view that it reads), `training_set_id`,
    `cutoff`, more of its training, and `inputs` (in order) where it has no signature. VECTORS: `size`, `similarity`,
    `definition` (its channel's hash, where it is known). CHANNEL: `definition`,
    `table` (a value of `channels.Table`), `half_life_days` (in which a user's like comes to count half; 0: never),
    `variant` (chosen on validation, for people), `validation` (`questions.Audience` → NDCG@10 of its list there, where
    anybody was asked).
    VIEWS: `views` as above."""

    def absent_views(self, online: OnlineSnapshot) -> dict[str, str]:
        """Return feature group → feature view of what it reads and `online` has not, or defines otherwise.

        A model never meets features that it was not trained on: nobody asks it while there is one.
        """
        read: dict[str, str] = self.data.get("views", {})
        return {group: view for group, view in read.items() if online.views.get(group) != view}

    def write(self, path: Path) -> None:
        """Write the part to a file of its own, whole or not at all."""
        write_json(path, dataclasses.asdict(self))

    @classmethod
    def read(cls, path: Path, remedy: str) -> Self:
        """Read what `write` wrote.

        Raises:
            CorruptRecordError: It is something else; the message ends with `remedy`.
        """
        return cls._of(read_json(path, remedy), str(path), remedy)

    @classmethod
    def _of(cls, record: Mapping[str, object], source: str, remedy: str) -> Self:
        # The base's own name, for a class with slots is made twice and `super()` without it finds the first.
        part = super(Part, cls)._of(record, source, remedy)
        for name, kind in _PART_DATA.get(part.kind, {}).items():
            if not isinstance(part.data.get(name), kind):
                received = repr(part.data.get(name))
                msg = (
                    f"{source}: data of a part of kind {part.kind}: expected {name}, {kind.__name__}, received "
                    f"{received:.80}; {remedy}"
                )
                raise CorruptRecordError(msg)
        return part


def _check_parts(parts: Mapping[str, Part], kinds: Collection[PartKind], source: str, remedy: str) -> None:
    """Refuse parts under other names than their own, and of kinds that do not belong there."""
    for name, part in parts.items():
        if part.name != name or part.kind not in kinds:
            msg = (
                f"{source}: part {name}: expected this name and one of the kinds {sorted(map(str, kinds))}, received "
                f"{part.name} of kind {part.kind}; {remedy}"
            )
            raise CorruptRecordError(msg)


class TrainingKind(StrEnum):
    """What a training set is for, and so what its rows are."""

    RANKING = "ranking"
    """Events with labels of both classes."""
    RETRIEVAL = "retrieval"
    """Positive events alone: which item came next, given what was known of the user strictly before."""
    LISTS = "lists"
    """What recall offered at moments of the past: which of it the user then liked. Split by the questions' roles."""


@dataclass(frozen=True, slots=True)
class TrainingSet(_Record):
    """A training set: rows joined to features strictly before each label, and the splits it owns.

    Rows of events lie in order of time; those of the kind LISTS by origin, question and item.

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
    """Mean value of the events in train, of the kind LISTS of those before `train_end`; for smoothing."""
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
    candidates_id: str = ""
    """The candidates that are its rows, of the kind LISTS."""


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
    """Each gate: name, figure, threshold, details, and verdict: 'pass', 'warning', 'fail', 'undecided' or 'not
    applicable'."""


@dataclass(frozen=True, slots=True)
class Refit(_Record):
    """Whether the champion has learned from what a run's gates ask, and then its own spec, fitted again in that run.

    It lies in the run's folder. Moments are ISO 8601, UTC. No champion: the texts about it are empty.
    """

    namespace: str
    version: str
    """The champion's."""
    run_id: str
    """The champion's."""
    learned_until: str
    """Where the champion's rows end, those that it was chosen on among them; empty where nothing says it."""
    asked_from: str
    """The first moment that the gates ask about, of questions and of test rows that the champion can read; empty where
    they ask it nothing."""
    saved_model: str
    """The fit, a path relative to the namespace's folder; empty where none is needed, or possible."""
    saved_model_sha256: str
    """Of the fit."""
    training_set_id: str
    """What the fit has learned from."""
    fitted_until: str
    """Where the fit's rows end."""
    impossible: str
    """Why there is no fit, where one is needed; else empty."""

    @property
    def needed(self) -> bool:
        """Whether the champion itself cannot be compared."""
        return bool(self.saved_model or self.impossible)

    def is_of(self, version: str, run_id: str) -> bool:
        """Tell whether it is about this champion: another may have come into force meanwhile."""
        return (self.version, self.run_id) == (version, run_id)

    @property
    def why(self) -> str:
        """Why a fit is needed, for people; empty where none is."""
        if not self.needed:
            return ""
        return (
            f"version {self.version} has learned from events up to {self.learned_until}, and the gates ask from "
            f"{self.asked_from} on"
        )

    def fault(self, root: Path) -> str:
        """Return what is wrong with the fit, which lies in the namespace's folder `root`; empty where nothing is."""
        saved_model = root / self.saved_model
        received = tree_sha256(saved_model) if saved_model.is_dir() else "no folder"
        if received == self.saved_model_sha256:
            return ""
        return f"{saved_model}: expected SHA-256 {self.saved_model_sha256}, received {received}"

    @property
    def why_not(self) -> str:
        """Why neither the champion nor a fit of its spec can be compared; empty where that is not so."""
        return f"{self.why}; its spec cannot be fitted again: {self.impossible}" if self.impossible else ""

    @property
    def named(self) -> str:
        """What is compared with the candidate, for people; of a fit it says what it is."""
        if not self.saved_model:
            return champion_named(self.version)
        return (
            f"{champion_named(self.version)} (its spec fitted again on events before {self.fitted_until}, as version "
            f"{self.version} has learned from events up to {self.learned_until})"
        )


def champion_named(version: str) -> str:
    """Return how people call the champion."""
    return f"champion version {version}"


@dataclass(frozen=True, slots=True)
class OnlineSnapshot(_Record):
    """What the online side serves features from: Redis, and what lies in the recommender's memory."""

    FORMAT: ClassVar[int] = 2

    namespace: str
    schema: dict[str, Any]
    """The data set's, as in `TrainingSet`."""
    cutoff: str
    feast_project: str
    users: int
    items: int
    parts: dict[str, Part]
    """Name → part: `CATALOGUE`, the items with title, attributes and latest features, `VIEWS`, vectors under the names
    of their kinds, and channels."""

    @property
    def catalogue(self) -> Part:
        """The items."""
        return self.parts[CATALOGUE]

    @property
    def views(self) -> dict[str, str]:
        """Feature group → feature view in Redis, or in the catalogue."""
        views: dict[str, str] = self.parts[VIEWS].data["views"]
        return views

    def of_kind(self, kind: PartKind) -> dict[str, Part]:
        """Return its parts of one kind by name."""
        return {name: part for name, part in self.parts.items() if part.kind is kind}

    @classmethod
    def _read_format(cls, written: int, record: Mapping[str, object], source: str, remedy: str) -> Self:
        if written < 2:  # noqa: PLR2004 - the first with parts
            return cls(**_OneOfEach._of(record, source, remedy).parted())  # noqa: SLF001 - of this module
        snapshot = cls._of(record, source, remedy)
        _check_parts(snapshot.parts, SNAPSHOT_KINDS, source, remedy)
        for name, kind in ((CATALOGUE, PartKind.CATALOGUE), (VIEWS, PartKind.VIEWS)):
            if name not in snapshot.parts or snapshot.parts[name].kind is not kind:
                msg = f"{source}: expected a part {name}, received {sorted(snapshot.parts)}; {remedy}"
                raise CorruptRecordError(msg)
        return snapshot


CATALOGUE, VIEWS = "catalogue", "views"
"""The names of these parts of a snapshot."""


def catalogue_part(cutoff: str, path: str, sha256: str) -> Part:
    """Return the catalogue as of `cutoff`."""
    return Part(CATALOGUE, PartKind.CATALOGUE, cutoff, sha256, path=path)


def views_part(cutoff: str, views: Mapping[str, str]) -> Part:
    """Return the feature views as of `cutoff`."""
    return Part(
        VIEWS, PartKind.VIEWS, cutoff, text_sha256(json.dumps(views, sort_keys=True)), data={"views": {**views}}
    )


def vectors_part(  # noqa: PLR0917 - what it is, and how it is read
    name: str,
    cutoff: str,
    path: str,
    sha256: str,
    size: int,
    similarity: Similarity = Similarity.COSINE,
    towers: Mapping[str, str] | None = None,
    definition: str = "",
) -> Part:
    """Return item vectors as of `cutoff`; `towers` has name → checksum of the tower whose users they go with.

    `definition` is the hash of their channel's, empty where it is not known: no model reads what such a channel says.
    """
    return Part(
        name,
        PartKind.VECTORS,
        cutoff,
        sha256,
        path=path,
        needs=dict(towers or {}),
        data={"size": size, "similarity": similarity.value} | ({"definition": definition} if definition else {}),
    )


def channel_part(
    name: str,
    cutoff: str,
    path: str,
    checksum: str,
    *,
    definition: str,
    table: str,
    half_life_days: float,
    variant: str = "",
    validation: Mapping[str, float] | None = None,
) -> Part:
    """Return the table of a fitted channel as a part of a snapshot; the arguments are as in `Part.data`."""
    data = {
        "definition": definition,
        "table": table,
        "half_life_days": half_life_days,
        "variant": variant,
        "validation": dict(validation or {}),
    }
    return Part(name, PartKind.CHANNEL, cutoff, checksum, path=path, data=data)


_SIZE_BEFORE_PARTS = 32


@dataclass(frozen=True, slots=True)
class _OneOfEach(_Fields):
    """An OnlineSnapshot of the formats 0 and 1; all of its vectors had `_SIZE_BEFORE_PARTS` numbers."""

    NAMED: ClassVar[str] = "OnlineSnapshot"

    namespace: str
    schema: dict[str, Any]
    cutoff: str
    feast_project: str
    views: dict[str, str]
    catalogue: str
    catalogue_sha256: str
    item_embeddings: dict[str, str]
    item_embeddings_sha256: dict[str, str]
    users: int
    items: int

    def parted(self) -> dict[str, Any]:
        """Return the fields of the same snapshot with parts."""
        vectors = [
            vectors_part(name, self.cutoff, path, self.item_embeddings_sha256.get(name, ""), _SIZE_BEFORE_PARTS)
            for name, path in self.item_embeddings.items()
        ]
        parts = (
            catalogue_part(self.cutoff, self.catalogue, self.catalogue_sha256),
            views_part(self.cutoff, self.views),
        )
        kept = {name: getattr(self, name) for name in ("namespace", "schema", "cutoff", "feast_project")}
        return {
            **kept,
            "users": self.users,
            "items": self.items,
            "parts": {each.name: each for each in (*parts, *vectors)},
        }


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
class Candidates(_Record):
    """What recall offered for questions (`contracts.candidates`). Equal inputs give an equal id."""

    candidates_id: str
    namespace: str
    schema: dict[str, Any]
    """The data set's, as in `TrainingSet`."""
    questions_id: str
    """The questions that were answered."""
    ranked: int
    """So many items at most are candidates of a question."""
    quotas: dict[str, int]
    """Channel → its share of the candidates, of every channel that was asked."""
    rows: dict[str, int]
    """File → rows."""
    checksums: dict[str, str]
    """File → SHA-256."""


@dataclass(frozen=True, slots=True)
class Release(_Record):
    """One immutable composition of everything that is served: a new one replaces some parts, and keeps the rest."""

    FORMAT: ClassVar[int] = 2

    namespace: str
    number: int
    """Its own, counted within the namespace; a rollback brings it back under it."""
    parts: dict[str, Part]
    """Name → part. There is a ranker under the name `RANKING_MODEL` always."""
    previous: int
    """The number of what a rollback goes back to; 0 for the first release."""
    previous_parts: dict[str, Part]
    """Its parts, so that going back needs no other record."""
    why: str
    """Why it came into force."""

    @property
    def ranker(self) -> Part:
        """The model that ranks, where no arm has one of its own."""
        return self.parts[RANKING_MODEL]

    def absent_views(self, online: OnlineSnapshot) -> dict[str, str]:
        """Return feature group → feature view of what its models read and `online` has not, or defines otherwise."""
        return {group: view for part in self.parts.values() for group, view in part.absent_views(online).items()}

    @classmethod
    def _read_format(cls, written: int, record: Mapping[str, object], source: str, remedy: str) -> Self:
        if written < 2:  # noqa: PLR2004 - the first with parts
            release = cls(**_OneRanker._of(record, source, remedy).parted(source, remedy))  # noqa: SLF001 - of this module
        else:
            release = cls._of(record, source, remedy)
        for parts in (release.parts, release.previous_parts):
            _check_parts(parts, RELEASE_KINDS, source, remedy)
        if RANKING_MODEL not in release.parts or release.ranker.kind is not PartKind.RANKER:
            msg = f"{source}: expected a ranker as part {RANKING_MODEL}, received {sorted(release.parts)}; {remedy}"
            raise CorruptRecordError(msg)
        return release


def misfits(release: Release | None, online: OnlineSnapshot) -> dict[str, str]:
    """Return name → reason of the parts, of either side, that lack what they need of the other; views apart."""
    released = release.parts if release is not None else {}
    sides = ((released, online.parts, "snapshot"), (online.parts, released, "release"))
    return {
        name: f"{part.kind} {name} {part.version} needs {missed} in the {side}"
        for parts, others, side in sides
        for name, part in parts.items()
        if (missed := _missed(part, others))
    }


def _missed(part: Part, others: Mapping[str, Part]) -> str:
    for name, checksum in part.needs.items():
        other = others.get(name)
        if other is None:
            return f"a part {name}, there is none"
        if checksum and other.checksum != checksum:
            return f"the part {name} with the checksum {checksum[:8]}, there is {other.checksum[:8]}"
    return ""


@dataclass(frozen=True, slots=True)
class _OneRanker(_Fields):
    """A Release of the formats 0 and 1."""

    NAMED: ClassVar[str] = "Release"

    namespace: str
    model: str
    version: str
    run_id: str
    saved_model_sha256: str
    feature_service: str
    feature_service_hash: str
    views: dict[str, str]
    inputs: list[str]
    training_set_id: str
    train_end: str
    cutoff: str
    item_embeddings: str
    item_embeddings_sha256: str
    verdict: str
    previous_version: str

    def parted(self, source: str, remedy: str) -> dict[str, Any]:
        """Return the fields of the same release with parts: its number was the ranker's version."""
        for version in (self.version, self.previous_version or "1"):
            if not (version.isascii() and version.isdigit() and len(version) <= _VERSION_DIGITS and int(version)):
                msg = f"{source}: expected versions such as 3, received {version!r}; {remedy}"
                raise CorruptRecordError(msg)
        data = {name: getattr(self, name) for name in (*_TRAINING_DATA, "views", "inputs")}
        ranker = Part(self.model, PartKind.RANKER, self.version, self.saved_model_sha256, self.run_id, data=data)
        return {
            "namespace": self.namespace,
            "number": int(self.version),
            "parts": {self.model: ranker},
            "previous": int(self.previous_version or 0),
            "previous_parts": {},
            "why": self.verdict,
        }


def model_data(training_set: TrainingSet, views: Mapping[str, str]) -> dict[str, Any]:
    """Return a part's data of a model that was fitted on `training_set` and reads `views`."""
    return {name: getattr(training_set, name) for name in _TRAINING_DATA} | {"views": dict(views)}


_VERSION_DIGITS = 10
_TRAINING_DATA = (
    *("feature_service", "feature_service_hash", "training_set_id", "train_end", "cutoff"),
    *("item_embeddings", "item_embeddings_sha256"),
)


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
