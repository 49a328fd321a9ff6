"""The declared margins of the gates: one YAML for each kind of model."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from feature_repo.contracts.objectives import ORDERS, Metric
from models.dataset import TEST, TEST_AS_OF_REFRESH
from models.declared import read_declared
from models.errors import MarginsError
from models.evaluation.slices import DeclaredSlices
from models.evaluation.table import CHANCE, UNTRAINED

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHIPPED = Path(__file__).parent
_VARIABLE, _PREFIX = "KESTREL_GATE_MARGINS", "KESTREL_GATE_"
_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TestSplit(StrEnum):
    """The rows that a comparison looks at."""

    __test__ = False  # pytest takes every class called Test... for tests

    MOMENT = TEST
    """Test rows with features as of their moment."""
    REFRESH = TEST_AS_OF_REFRESH
    """The same rows with features as of the last refresh."""


class Margin(BaseModel):
    """One comparison, and by how much the candidate may be worse."""

    model_config = _STRICT

    metric: Metric
    split: TestSplit = Field(default=TestSplit.MOMENT, validation_alias=AliasChoices("split", "slice"))
    """In files from before rows had slices of their own, it is called `slice`."""
    reference: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    """`champion`, `chance` (a constant: half of all pairs in the right order), `means`, `popularity`, or the name of a
    baseline's spec."""
    margin: float | None = Field(default=None, ge=-1, le=1)
    """In the metric's unit; below 0 the candidate has to be so much better."""
    margin_share: float | None = Field(default=None, ge=0, le=1)
    """The same as a share of the reference's figure, such as 0.02: 2 % worse than that is no harm yet."""
    confidence: float | None = Field(default=None, gt=0.5, lt=1)

    @property
    def name(self) -> str:
        """The gate's name: `auc_vs_means`."""
        where = "" if self.split is TestSplit.MOMENT else f"_{self.split.value.removeprefix(f'{TEST}_')}"
        return f"{self.metric.value}_vs_{self.reference}{where}"

    @model_validator(mode="after")
    def _has_one_margin(self) -> Self:
        if (self.margin is None) is (self.margin_share is None):
            both = {"margin": self.margin, "margin_share": self.margin_share}
            msg = f"{self.name}: expected either margin or margin_share, received {both}"
            raise ValueError(msg)
        if self.margin_share is not None and self.reference == CHANCE:
            msg = f"{self.name}: expected a margin, received margin_share; chance has no figure to take a share of"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _is_of_rows(self) -> Self:
        if self.metric is Metric.NDCG:
            msg = f"{self.name}: expected a metric of rows, received {self.metric.value}; declare it in `lists`"
            raise ValueError(msg)
        return self

    def allowed(self, figure: float) -> float:
        """Return by how much the candidate may be worse than a reference of this figure, in the metric's unit."""
        return self.margin if self.margin is not None else (self.margin_share or 0.0) * abs(figure)

    @model_validator(mode="after")
    def _has_the_metric(self) -> Self:
        if self.metric not in ORDERS and self.reference in {CHANCE, *UNTRAINED}:
            msg = f"{self.name}: {self.reference} only puts rows in an order, {self.metric.value} is not defined for it"
            raise ValueError(msg)
        return self


BEST_SIMPLE = "best_simple"


class ListMargin(BaseModel):
    """One comparison of the lists that users would be shown, by NDCG@10."""

    model_config = _STRICT

    reference: Literal["best_simple", "champion"]
    """The simple list that was best on validation, or the champion's list."""
    margin: float = Field(ge=-1, le=1)
    """By how much the candidate's may be worse; below 0 it has to be so much better."""

    @property
    def name(self) -> str:
        """The gate's name: `lists_vs_champion`."""
        return f"lists_vs_{self.reference}"


class DriftLimit(BaseModel):
    """Of a population stability index."""

    model_config = _STRICT

    warn: float = Field(gt=0)
    """Above it a gate warns, and lets the candidate through."""
    fail: float | None = Field(default=None, gt=0)
    """Above it a gate fails; none: drift alone rejects nobody, as time alone makes a large one."""

    @model_validator(mode="after")
    def _warns_first(self) -> Self:
        if self.fail is not None and self.warn >= self.fail:
            msg = f"expected warn below fail, received {self.warn} and {self.fail}"
            raise ValueError(msg)
        return self


class Limits(BaseModel):
    """What is judged without a reference. What a file leaves out is not judged: files outlive code."""

    model_config = _STRICT

    calibration_error: float = Field(gt=0, le=1)
    calibration_shift: float = Field(gt=0, le=1)
    slice_lag: float | None = Field(default=None, gt=0, le=1)
    input_drift: DriftLimit | None = None
    score_drift: DriftLimit | None = None
    served_difference: float = Field(ge=0, le=1)
    grpc_p99_ms: float = Field(gt=0)
    one_user_p50_ms: float | None = Field(default=None, gt=0)
    export_bytes: int | None = Field(default=None, gt=0)


class Margins(BaseModel):
    """A file of margins; `ranking.yaml` says what each field means."""

    model_config = _STRICT

    confidence: float = Field(gt=0.5, lt=1)
    resamples: int = Field(ge=100, le=20_000)
    min_users: int = Field(ge=2)
    max_gain: float = Field(gt=0, le=1)
    max_list_gain: float | None = Field(default=None, gt=1, le=1_000)
    promote_on_tie: bool
    lists: tuple[ListMargin, ...] = ()
    comparisons: tuple[Margin, ...] = Field(min_length=1)
    limits: Limits
    slices: DeclaredSlices = DeclaredSlices()

    @model_validator(mode="after")
    def _no_comparison_twice(self) -> Self:
        names = [*(one.name for one in self.lists), *(one.name for one in self.comparisons)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            msg = f"comparisons {twice} are declared twice"
            raise ValueError(msg)
        return self


def read_margins(kind: str, own: Path | None = None, environ: Mapping[str, str] = os.environ) -> Margins:
    """Return the margins for a kind of model, such as `ranking`: those of `own`, or those that come along.

    Raises:
        MarginsError: The file is none of margins, or settings of before there was a file are still given.
    """
    shipped = _SHIPPED / f"{kind}.yaml"
    if old := sorted(name for name in environ if name.startswith(_PREFIX) and name != _VARIABLE):
        msg = f"{old}: margins are declared in a file; copy {shipped}, edit it, and name it in {_VARIABLE}"
        raise MarginsError(msg)
    return read_declared(Margins, own or shipped, shipped, MarginsError)
