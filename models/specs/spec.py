"""A spec: one model of a training run, declared and not programmed.

Reading one needs no TensorFlow; that its class exists and takes its config is checked where a file is read.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from feature_repo.contracts.manifests import TrainingKind
from feature_repo.contracts.objectives import OBJECTIVES, PROBABILITY, Metric, Objective
from feature_repo.contracts.signatures import DEFAULT_FEATURES, check_features, is_pair_feature
from models.candidate_folder import TAKEN
from models.declared import checked, read_declared, told
from models.errors import SpecError
from models.evaluation.table import RESERVED

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from models.ranking.base import RankingConfig, RankingModel

_SHIPPED = Path(__file__).parent
_STRICT = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Role(StrEnum):
    """What a model is trained for."""

    CANDIDATE = "candidate"
    """To become champion."""
    BASELINE = "baseline"
    """To be beaten: it stands in every table, and gates compare with it."""
    CHAMPION = "champion"
    """To stand in for a champion that knows what gates ask: no file declares it, and it never competes."""


_CHAMPION_PREFIX = "champion-"
"""Of the names of specs that are fitted again; the champion's version follows."""


class Spec(BaseModel):
    """One model of a training run."""

    model_config = _STRICT

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    """Of its folder, its MLflow run and its tag."""
    class_name: str = Field(default_factory=lambda read: read["name"], alias="class")
    """A name of `models/ranking/catalogue.py`; that of the spec where left out."""
    features: tuple[str, ...] = Field(default=DEFAULT_FEATURES, min_length=1)
    """The feature set: names of feature services, feature groups, and single features."""
    rows: TrainingKind = TrainingKind.RANKING
    """The training set that it learns from: events with values, or lists that recall offered."""
    objective: str = PROBABILITY.name
    """What it learns: a name of `contracts.objectives`."""
    role: Role = Role.CANDIDATE
    may_be_champion: bool = Field(default_factory=lambda read: read["role"] is Role.CANDIDATE)
    """Whether it competes with the candidates; a baseline does only where it says so."""
    config: dict[str, Any] = {}
    """Differences from the defaults of the class's config, at any depth."""

    @model_validator(mode="after")
    def _has_a_name_of_its_own(self) -> Self:
        if self.name in RESERVED | TAKEN:
            msg = f"name {self.name!r}: expected another than {sorted(RESERVED | TAKEN)}, which mean something else"
            raise ValueError(msg)
        if self.name.startswith(_CHAMPION_PREFIX) is not (self.role is Role.CHAMPION):
            msg = (
                f"name {self.name!r}, role {self.role.value}: expected names that begin with {_CHAMPION_PREFIX!r} of "
                f"role {Role.CHAMPION.value}, and of no other; use another name"
            )
            raise ValueError(msg)
        return self

    @field_validator("rows")
    @classmethod
    def _ranking_models_have_them(cls, rows: TrainingKind) -> TrainingKind:
        if rows is TrainingKind.RETRIEVAL:
            msg = (
                f"rows {rows.value!r}: expected {TrainingKind.RANKING.value!r} or {TrainingKind.LISTS.value!r}; rows "
                "for retrieval have no class to rank by"
            )
            raise ValueError(msg)
        return rows

    @model_validator(mode="after")
    def _channels_were_asked(self) -> Self:
        pairs = [name for name in self.features if is_pair_feature(name)]
        if pairs and self.rows is not TrainingKind.LISTS:
            msg = (
                f"features {pairs}: expected rows: {TrainingKind.LISTS.value}, received rows: {self.rows.value}; no "
                "channel was asked about rows of events, so that none said anything of them"
            )
            raise ValueError(msg)
        return self

    @field_validator("objective")
    @classmethod
    def _is_an_objective(cls, name: str) -> str:
        if name not in OBJECTIVES:
            msg = f"objective {name!r}: expected one of {sorted(OBJECTIVES)}"
            raise ValueError(msg)
        return name

    @field_validator("features")
    @classmethod
    def _some_schema_has_them(cls, features: tuple[str, ...]) -> tuple[str, ...]:
        check_features(features)
        return features

    @property
    def learned(self) -> Objective:
        """The objective that is named."""
        return OBJECTIVES[self.objective]

    def model(self) -> RankingModel[RankingConfig]:
        """Return the untrained model.

        Raises:
            SpecError: There is no such class, or its config is another.
        """
        from models.ranking.catalogue import ranking_model  # noqa: PLC0415 - TensorFlow takes seconds to import

        model_class = ranking_model(self.class_name)
        whole = _merged(model_class.config_class().model_dump(mode="json"), self.config)
        try:
            model: RankingModel[RankingConfig] = model_class(checked(model_class.config_class, whole))
        except ValidationError as error:
            msg = f"config of spec {self.name!r}: {told(error)}"
            raise SpecError(msg) from error
        return model

    def record(self) -> dict[str, Any]:
        """Return the spec in JSON's types, as `parse_spec` reads it."""
        return self.model_dump(mode="json", by_alias=True)

    def whole(self) -> Spec:
        """Return the spec with every field of its config; SpecError if it is none of its class."""
        return self.model_copy(update={"config": self.model().config.model_dump(mode="json")})

    @property
    def definition(self) -> dict[str, Any]:
        """What decides the fit on given rows and by a given seed: two whole specs of one definition need one fit."""
        return self.model_dump(mode="json", by_alias=True, exclude={"name", "role", "may_be_champion"})

    def standing_in(self, version: str) -> Spec:
        """Return the spec of a champion of this version as it is fitted again: under a name of its own."""
        named = {"name": f"{_CHAMPION_PREFIX}{version}", "role": Role.CHAMPION, "may_be_champion": False}
        return self.model_copy(update=named)


class Specs(BaseModel):
    """A file of specs; `ranking.yaml` says what each field means."""

    model_config = _STRICT

    choose_by: Metric
    choose_without_lists: Metric = Metric.LOG_LOSS
    """What decides among those of rows: ranking, where choose_by is a metric of lists and none could be measured."""
    specs: tuple[Spec, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        names = [spec.name for spec in self.specs]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            msg = f"specs {twice}: expected each name once"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _none_stands_in(self) -> Self:
        if names := [spec.name for spec in self.specs if spec.role is Role.CHAMPION]:
            msg = (
                f"specs {names}: expected the role {Role.CANDIDATE.value} or {Role.BASELINE.value}, received "
                f"{Role.CHAMPION.value}; a run makes such a spec of the champion's by itself"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _all_that_compete_have_the_metric(self) -> Self:
        """Every model has a metric of lists; one of rows compares models of one objective's metrics, on equal rows."""
        key = "choose_without_lists" if self.choose_by is Metric.NDCG else "choose_by"
        metric = self.row_metric
        if metric is Metric.NDCG:
            msg = f"{key} {metric.value}: expected a metric of rows, for where there are no lists"
            raise ValueError(msg)
        competing = self.by_rows
        objectives = {spec.name: spec.learned for spec in competing}
        if without := {name: each.name for name, each in objectives.items() if metric not in each.metrics}:
            shared = [each.value for each in Metric if all(each in one.metrics for one in objectives.values())]
            msg = (
                f"{key} {metric.value}: expected a metric that every objective has of specs that may be champion, "
                f"{without} lack it; all have {shared}"
            )
            raise ValueError(msg)
        if len({spec.rows for spec in competing}) > 1:
            msg = (
                f"{key} {metric.value}: expected specs that may be champion of the same rows, received "
                f"{ {spec.name: spec.rows.value for spec in competing} }; figures of different rows do not compare: "
                f"choose by {Metric.NDCG.value}"
            )
            raise ValueError(msg)
        return self

    @property
    def row_metric(self) -> Metric:
        """What decides where rows do."""
        return self.choose_without_lists if self.choose_by is Metric.NDCG else self.choose_by

    @property
    def by_rows(self) -> tuple[Spec, ...]:
        """The specs that compete where rows decide: all, or those of rows: ranking where lists were to decide."""
        competing = (spec for spec in self.specs if spec.may_be_champion)
        if self.choose_by is not Metric.NDCG:
            return tuple(competing)
        return tuple(spec for spec in competing if spec.rows is TrainingKind.RANKING)

    def named(self, name: str) -> Spec:
        """Return the spec of a name; SpecError says which there are."""
        found = {spec.name: spec for spec in self.specs}
        if name not in found:
            msg = f"spec {name!r}: expected one of {sorted(found)}"
            raise SpecError(msg)
        return found[name]

    def chosen(self, names: Collection[str] = (), configs: Mapping[str, Mapping[str, Any]] | None = None) -> Specs:
        """Return the specs of these names, all where there are none, with other configs, each of them whole.

        Args:
            names: Specs of this file.
            configs: Spec's name → differences from its config.

        Raises:
            SpecError: A name is none of this file's, a config does not fit, or no spec may become champion.
        """
        configs = configs or {}
        for name in (*names, *configs):
            self.named(name)
        for name, config in configs.items():
            if not isinstance(config, dict):
                msg = f"config of spec {name!r}: expected an object of its fields, received {config!r:.80}"
                raise SpecError(msg)
        specs = [
            spec.model_copy(update={"config": _merged(spec.config, configs.get(spec.name, {}))}).whole()
            for spec in self.specs
            if not names or spec.name in names
        ]
        if not any(spec.may_be_champion for spec in specs):
            msg = f"specs {[spec.name for spec in specs]}: expected one that may be champion; train a candidate, too"
            raise SpecError(msg)
        return self.model_copy(update={"specs": tuple(specs)})


def read_specs(kind: str, own: Path | None = None) -> Specs:
    """Return the specs for a kind of model, such as `ranking`: those of the file `own`, or those that come along.

    Raises:
        SpecError: The file is none of specs.
    """
    shipped = _SHIPPED / f"{kind}.yaml"
    path = own or shipped
    specs = read_declared(Specs, path, shipped, SpecError)
    try:
        for spec in specs.specs:
            spec.model()
    except SpecError as error:
        msg = f"{path}: {error}"
        raise SpecError(msg) from error
    return specs


def parse_spec(record: object) -> Spec:
    """Return the spec of what `Spec.record` returned; SpecError for anything else."""
    try:
        return checked(Spec, record)
    except ValidationError as error:
        msg = f"spec {record!r:.200}: {told(error)}"
        raise SpecError(msg) from error


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes`, which go as deep as they say: `{"fit": {"epochs": 3}}` leaves the batch size."""
    merged = dict(base)
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(name), dict)
        merged[name] = _merged(base[name], value) if both else value
    return merged
