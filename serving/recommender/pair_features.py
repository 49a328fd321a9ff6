"""What channels say of a user's candidates, as inputs of the model. A channel that is away leaves missing values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_repo.contracts.channels import Figure, channels
from feature_repo.contracts.columns import Dtype
from feature_repo.contracts.embeddings import EMBEDDINGS
from feature_repo.contracts.manifests import PartKind
from feature_repo.contracts.signatures import Scope

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from feature_repo.contracts.channels import Channel, PairFeature
    from feature_repo.contracts.columns import Column
    from feature_repo.contracts.signatures import Signature
    from serving.recommender.recall.channel import Recalled
    from serving.recommender.snapshot import Snapshot

_NUMPY = {Dtype.INT64: np.int64, Dtype.FLOAT32: np.float32}
_FITTED_KINDS = frozenset({PartKind.VECTORS, PartKind.CHANNEL})


@dataclass(frozen=True, slots=True)
class Fit:
    """A channel that is online."""

    definition: str
    """Hash of its definition; empty where nothing says it."""
    as_of: str
    """Exclusive end of the interval that it knows."""


@dataclass(frozen=True, slots=True)
class PairPlan:
    """What a model reads of channels: worked out once per pair of snapshot and release."""

    inputs: tuple[tuple[Column, PairFeature], ...] = ()
    as_of: Mapping[str, str] = field(default_factory=dict)
    """Channel that it reads → exclusive end of the interval that the channel knows."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Channel that it has to do without → the reason."""
    items: int = 0
    """The catalogue's size."""

    def lacking(self, answered: Collection[str]) -> list[str]:
        """Return the channels that the model reads and has to do without, `answered` being those that were asked."""
        return [*self.absent, *(name for name in self.as_of if name not in answered)]

    def values(self, answers: Mapping[str, Recalled], candidates: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
        """Return column → `[candidates]`: what each channel says of the candidates, `Column.missing` where nothing.

        Args:
            answers: Channel → what it found; of a channel that is not among them everything is missing.
            candidates: Positions in the catalogue.
        """
        values: dict[str, NDArray[Any]] = {}
        for column, pair in self.inputs:
            whole = np.full(self.items, column.missing, dtype=_NUMPY[column.dtype])
            answer = answers.get(pair.channel) if pair.channel in self.as_of else None
            if answer is not None:
                figures = np.arange(1, len(answer.positions) + 1) if pair.figure is Figure.RANK else answer.scores
                whole[answer.positions] = column.missing if figures is None else figures
            values[column.name] = whole[candidates]
        return values


def online_channels(snapshot: Snapshot) -> dict[str, Fit]:
    """Return name → fit of the channels that a snapshot has."""
    manifest, declared = snapshot.manifest, channels(snapshot.schema)
    views = set(manifest.views.values())
    fits = {
        name: Fit(channel.definition if views.issuperset(_views(channel)) else "", manifest.cutoff)
        for name, channel in declared.items()
        if channel.table is None and name not in EMBEDDINGS
    }
    return fits | {
        name: Fit(part.data.get("definition", ""), part.version)
        for name, part in manifest.parts.items()
        if part.kind in _FITTED_KINDS
    }


def _views(channel: Channel) -> set[str]:
    """Return the feature views that a channel of the catalogue and of users' features reads."""
    return {str(channel.parameters[name]) for name in ("view", "liked") if name in channel.parameters}


def plan_pairs(signature: Signature, snapshot: Snapshot) -> PairPlan:
    """Work out which channels a model may read: those of the very definition that it was trained on."""
    columns = {column.name: column for column in signature.scoped(Scope.PAIR)}
    inputs = tuple((columns[name], pair) for name, pair in signature.pairs.items())
    fits = online_channels(snapshot)
    code = {name: channel.definition for name, channel in channels(snapshot.schema).items()}
    absent: dict[str, str] = {}
    for _, pair in inputs:
        name, wanted = pair.channel, pair.definition
        if name not in fits:
            absent[name] = f"channel {name}: the model reads it, the snapshot has none; refresh with it"
        elif {fits[name].definition, code.get(name, wanted)} != {wanted}:
            absent[name] = (
                f"channel {name}: the model was trained on definition {wanted}, online is "
                f"{fits[name].definition or 'an unknown one'}, this code has {code.get(name, 'none')}; train and "
                "promote a model on the new one"
            )
    as_of = {pair.channel: fits[pair.channel].as_of for _, pair in inputs if pair.channel not in absent}
    return PairPlan(inputs, as_of, absent, len(snapshot.catalogue))
