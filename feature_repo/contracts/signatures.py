"""Inputs and outputs of the models, by which the exported graph, the model server and its callers are checked.

A signature belongs to its model: it follows from the spec's feature set and objective, is stored inside the SavedModel,
and is read from there. Whoever serves a model needs no code that knows its features.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

from feature_repo.contracts.channels import Figure, PairFeature, channels
from feature_repo.contracts.columns import Column, Dtype, check_distinct
from feature_repo.contracts.datasets import ITEM_ID, USER_ID
from feature_repo.contracts.features import FeatureGroup, FeatureService, declared
from feature_repo.contracts.objectives import PROBABILITY, Objective
from feature_repo.contracts.on_demand import REQUEST_TIME, OnDemandFeature, on_demand
from feature_repo.contracts.publishing import CorruptRecordError, read_json
from feature_repo.contracts.schemas import MOVIELENS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from feature_repo.contracts.manifests import Part
    from feature_repo.contracts.schemas import Schema

SIGNATURE_FILE = "assets.extra/kestrel_signature.json"
"""Inside a SavedModel: it goes wherever the model goes, and its checksum is part of the model's."""
SIGNATURE_ARTIFACT = "signature.json"
"""The same beside the other artifacts of a run."""
_FORMAT, _WITHOUT_PAIRS = 2, 1
"""The second has inputs of the scope PAIR; what has none is stored as before, for readers with code of then."""


class Scope(StrEnum):
    """Whom an input describes, and so how often it is sent in a request for one user and many items."""

    USER = "user"
    """The user, or the request itself: one row."""
    ITEM = "item"
    """The item: one row for each, the same whoever asks."""
    PAIR = "pair"
    """User and item together: one row for each item, another for the next user."""

    @classmethod
    def of_all(cls, scopes: Iterable[Scope]) -> Scope:
        """Return the scope of what is computed from values of these scopes."""
        different = set(scopes)
        return different.pop() if len(different) == 1 else cls.PAIR


class UnknownFeaturesError(ValueError):
    """A feature set names what no model can read."""


@dataclass(frozen=True, slots=True)
class ModelInput:
    """A raw column that enters the graph: `[batch]`, or `[batch, length]`."""

    column: Column
    scope: Scope
    group: str = ""
    """The feature group that it is of; empty for the item's id, the request's time, and pair features."""
    view: str = ""
    """That group's feature view: its name, and the hash of its definition."""
    pair: PairFeature | None = None
    """What it is of the scope PAIR."""

    def __post_init__(self) -> None:
        """Refuse an input of the scope PAIR that says no channel, and a channel of another scope."""
        if (self.scope is Scope.PAIR) != (self.pair is not None):
            msg = f"input {self.column.name}: expected a pair feature in the scope {Scope.PAIR}, and in no other"
            raise ValueError(msg)

    def to_json(self) -> dict[str, Any]:
        """Return what a caller of the model has to know of the input, in JSON's types."""
        column = self.column
        return {
            "name": column.name,
            "dtype": column.dtype.value,
            "length": column.length,
            "missing": column.missing,
            "scope": self.scope.value,
            "group": self.group,
            "view": self.view,
            "meaning": column.meaning,
            **({"pair": asdict(self.pair)} if self.pair else {}),
        }


@dataclass(frozen=True, slots=True)
class Signature:
    """What one model takes and returns.

    It is exported twice. `serving_default` has one row per (user, item): every input is `[batch, ...]`. `one_user` has
    user inputs of one row, `[1, ...]`, and inputs of items and pairs of one row per candidate, `[num_candidates, ...]`;
    what the graph makes of the user it stands beside each. Both return `score`, `[batch]` or `[num_candidates]`.
    """

    model: str
    """The kind: what the model's versions are called on the server, after the namespace."""
    inputs: tuple[ModelInput, ...]
    output: Column
    objective: Objective
    """What the output means."""
    on_demand: tuple[OnDemandFeature, ...] = ()
    """What the graph computes of the inputs at request time. Callers need not know, so that it is not stored."""

    def __post_init__(self) -> None:
        """Refuse two things of one name: the graph finds inputs and what it computes of them by their names."""
        inputs, computed = ((each.name for each in some) for some in (self.input_columns, self.on_demand))
        check_distinct(
            f"inputs, on-demand features and output of {self.model} models", (*inputs, *computed, self.output.name)
        )

    @property
    def input_columns(self) -> tuple[Column, ...]:
        """The raw columns in their declared order."""
        return tuple(item.column for item in self.inputs)

    @property
    def views(self) -> dict[str, str]:
        """Feature group → feature view, of the groups that the model reads a column of."""
        return {each.group: each.view for each in self.inputs if each.group}

    @property
    def pairs(self) -> dict[str, PairFeature]:
        """Raw column → what it is, of the scope PAIR."""
        return {each.column.name: each.pair for each in self.inputs if each.pair}

    def scoped(self, scope: Scope) -> tuple[Column, ...]:
        """The raw columns that describe the user, the item, or both together."""
        return tuple(item.column for item in self.inputs if item.scope is scope)

    def to_json(self) -> dict[str, Any]:
        """Return the stored form: all that a caller of the model has to know."""
        return {
            "format": _FORMAT if self.pairs else _WITHOUT_PAIRS,
            "model": self.model,
            "inputs": [each.to_json() for each in self.inputs],
            "output": self.output.name,
            "objective": self.objective.to_json(),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any], source: str) -> Signature:
        """Return what `to_json` stored; it knows nothing of encodings, which the graph has. Unknown fields are ignored.

        Raises:
            CorruptRecordError: A field that decides scores is missing, or is something else; `source` says where.
        """
        if type(record.get("format")) is not int or not 0 < record["format"] <= _FORMAT:
            msg = (
                f"{source}: field format: expected 1 to {_FORMAT}, received {record.get('format')!r}; use the code "
                "that wrote it, or train the model anew"
            )
            raise CorruptRecordError(msg)
        try:
            inputs = tuple(_input(each) for each in record["inputs"])
            objective = Objective.from_json(record["objective"], f"{source}, objective")
            output = Column(record["output"], Dtype.FLOAT32, objective.score)
            return cls(record["model"], inputs, output, objective)
        except CorruptRecordError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            msg = f"{source}: not the signature of a model: {error!r}; train the model anew"
            raise CorruptRecordError(msg) from error


def _input(record: Mapping[str, Any]) -> ModelInput:
    column = Column(
        record["name"],
        Dtype(record["dtype"]),
        record.get("meaning", ""),
        length=record["length"],
        missing=record["missing"],
    )
    scope = Scope(record["scope"])
    return ModelInput(
        column, scope, record["group"], record["view"], _pair(record["pair"]) if scope is Scope.PAIR else None
    )


def _pair(record: Mapping[str, Any]) -> PairFeature:
    return PairFeature(record["channel"], Figure(record["figure"]), record["definition"])


def read_signature(saved_model: Path) -> Signature:
    """Return the signature that a SavedModel brings along.

    Raises:
        CorruptRecordError: It has none, or one that cannot be read.
    """
    path = saved_model / SIGNATURE_FILE
    try:
        record = read_json(path)
    except FileNotFoundError as error:
        msg = f"SavedModel {saved_model}: expected the file {SIGNATURE_FILE}, found none; train the model anew"
        raise CorruptRecordError(msg) from error
    return Signature.from_json(record, str(path))


def part_signature(part: Part, schema: Schema) -> Signature:
    """Return what a part of a release takes and returns; that of one from before signatures were stored is worked out.

    Raises:
        CorruptRecordError: It has none that can be read, or reads what is not declared any longer.
    """
    source = f"{part.name} version {part.version}"
    if part.signature:
        return Signature.from_json(part.signature, f"{source}, signature")
    whole = ranking(schema)
    known = {each.column.name: each for each in whole.inputs}
    names, views = part.data.get("inputs", []), part.data.get("views", {})
    if not names or (unknown := sorted(set(names) - known.keys())):
        msg = f"{source}: expected inputs among {sorted(known)}, received {unknown if names else names}; train it anew"
        raise CorruptRecordError(msg)
    inputs = (replace(known[name], view=views.get(known[name].group, "")) for name in names)
    return replace(whole, inputs=tuple(inputs), on_demand=())


ROWS_SIGNATURE = "serving_default"
ONE_USER_SIGNATURE = "one_user"
EXPLAIN_SIGNATURE = "explain"
"""What each input adds to the score of a row: see `models.explain`."""


RANKING_MODEL = "ranking"
SCORE = Column("score", Dtype.FLOAT32, "What the model's objective says")
DEFAULT_FEATURES = ("ranking",)
"""The feature set of a model that names none: the service of the same name."""
_WIDEST = replace(MOVIELENS, has_relations=True)
"""A schema that gives every channel that any does."""


def model_inputs(service: FeatureService) -> tuple[ModelInput, ...]:
    """Return all that a model of a feature service can take: the item's id, the request's time, and the features."""
    return _inputs([(group, column) for group in service.groups for column in group.features])


def _inputs(features: list[tuple[FeatureGroup, Column]]) -> tuple[ModelInput, ...]:
    scopes = {USER_ID.name: Scope.USER, ITEM_ID.name: Scope.ITEM}
    chosen = (ModelInput(column, scopes[group.entity.name], group.name, group.view_name) for group, column in features)
    return (ModelInput(ITEM_ID, Scope.ITEM), ModelInput(REQUEST_TIME, Scope.USER), *chosen)


def pair_inputs(schema: Schema) -> dict[str, ModelInput]:
    """Return name → input of every pair feature that a model can take."""
    every = (each for channel in channels(schema).values() for each in channel.features)
    return {column.name: ModelInput(column, Scope.PAIR, pair=pair) for pair, column in every}


def is_pair_feature(name: str) -> bool:
    """Tell whether a name of a feature set is that of a pair feature, whichever schema gives it."""
    return name in pair_inputs(_WIDEST)


def feature_hashes(schema: Schema) -> dict[str, str]:
    """Return feature → hash of its definition, of all that a ranking model can learn from; pair features included."""
    hashes = declared(schema).known_by_time.feature_hashes
    return hashes | {name: each.pair.definition for name, each in pair_inputs(schema).items() if each.pair}


def check_features(names: Iterable[str]) -> None:
    """Raise UnknownFeaturesError for names that no schema gives: an attribute can give any of the items or users."""
    known = [*(service.name for service in declared(_WIDEST).services), *pair_inputs(_WIDEST)]
    others = tuple(f"{owner.value}_" for owner in (Scope.USER, Scope.ITEM))
    if unknown := sorted(name for name in set(names) - set(known) if not name.startswith(others)):
        msg = (
            f"features {unknown}: expected names among {known}, or of feature groups and features, which begin with "
            f"{' or '.join(others)}; docs/features.md has them"
        )
        raise UnknownFeaturesError(msg)


@cache
def ranking(
    schema: Schema, features: tuple[str, ...] = DEFAULT_FEATURES, objective: Objective = PROBABILITY
) -> Signature:
    """Return what a ranking model takes and returns, in a data set of this schema.

    Args:
        schema: The data set's.
        features: The feature set: names of feature services, feature groups, single features, and pair features; and
            `user_id`, which no service has. The item's id and the request's time are always among the inputs.
        objective: What is learned.

    Raises:
        UnknownFeaturesError: A name is none of a feature that is known as of a label's time.
    """
    declaration = declared(schema)
    known = [(group, column) for group in declaration.known_by_time.groups for column in group.features]
    services = {service.name: {group.name for group in service.groups} for service in declaration.services}
    pairs = pair_inputs(schema)
    names = services.keys() | {group.name for group, _ in known} | {column.name for _, column in known} | pairs.keys()
    names |= {USER_ID.name}
    if unknown := sorted(set(features) - names):
        msg = (
            f"features {unknown}: expected names of services {sorted(services)}, or of feature groups, features and "
            f"pair features, among {sorted(names - services.keys())}; mend the spec's features"
        )
        raise UnknownFeaturesError(msg)
    wanted = set(features).union(*(services.get(name, ()) for name in features))
    chosen = [(group, column) for group, column in known if group.name in wanted or column.name in wanted]
    users = [ModelInput(USER_ID, Scope.USER)] if USER_ID.name in features else []
    inputs = (*users, *_inputs(chosen), *(each for name, each in pairs.items() if name in features))
    names_of_inputs = {each.column.name for each in inputs}
    computed = tuple(each for each in on_demand(schema) if names_of_inputs.issuperset(each.inputs))
    return Signature(RANKING_MODEL, inputs, SCORE, objective, computed)
