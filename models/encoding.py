"""The part of the graph that has no weights: raw columns to indices and numbers about 0.

It is apart from the part that learns for two reasons: training encodes every row once instead of once per epoch, and
the `one_user` signature encodes the user once instead of once per candidate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from feature_repo.contracts.columns import SCALE_ENCODINGS, TERM_ENCODINGS, Encoding, vocabularies
from feature_repo.contracts.datasets import ITEM_ID
from feature_repo.contracts.on_demand import REQUEST_TIME, Computation
from feature_repo.contracts.signatures import Scope, Signature
from models.encoded_columns import EncodedColumns, Vocabulary
from models.errors import UnknownFeatureError
from models.inputs import Columns, keras_inputs, to_tensors
from models.layers.hashed_index import HashedIndex
from models.layers.indicator import Indicator
from models.layers.quantile_index import QuantileIndex
from models.layers.rescale import Rescale, Scaled
from models.layers.unknown_dropout import UnknownDropout
from models.layers.vector_norm import VectorNorm
from models.layers.vocabulary_index import VocabularyIndex
from models.on_demand import add_on_demand, smoothed_mean
from models.sequences import Sequence, add_sequences

if TYPE_CHECKING:
    from collections.abc import Collection

    from feature_repo.contracts.columns import Column
    from models.transforms import Transforms

USER_SMOOTHED_MEAN, ITEM_SMOOTHED_MEAN = "user_smoothed_mean", "item_smoothed_mean"
_BATCH = 16_384


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the encoder hands to the part that learns."""

    model: Any
    """keras.Model: raw columns by name → encoded columns by name."""
    scopes: dict[str, Scope]
    """Encoded column → whom it describes."""
    vocabularies: dict[str, Vocabulary]
    """Vocabulary → its indices. Hashes, buckets and parts of the calendar are vocabularies of their own."""
    categorical: dict[str, str]
    """Encoded column of indices, `[batch]` or `[batch, length]` → its vocabulary."""
    numeric: tuple[str, ...]
    """Encoded columns `[batch, n]` of numbers about 0."""
    on_demand: dict[str, Computation]
    """Those of the encoded columns that exist at request time alone → how each is computed."""
    sequences: tuple[Sequence, ...] = ()
    """Encoded columns that are read together, place by place; the longest list first."""

    def reading(self, chosen: Collection[str]) -> Encoded:
        """Return the same without the on-demand features that are not chosen: a model reads what helps it.

        Args:
            chosen: Names of on-demand features, and computations, which stand for all features computed so.

        Raises:
            UnknownFeatureError: One is neither, or without the others there is nothing to read.
        """
        if unknown := sorted(set(chosen) - set(Computation) - self.on_demand.keys()):
            msg = (
                f"on-demand features {unknown}: expected computations {sorted(map(str, Computation))} or names among "
                f"{sorted(self.on_demand)}, given by the spec's features; mend on_demand in its config, or add features"
            )
            raise UnknownFeatureError(msg)
        others = {
            name for name, computation in self.on_demand.items() if name not in chosen and computation not in chosen
        }
        categorical = {name: vocabulary for name, vocabulary in self.categorical.items() if name not in others}
        numeric = tuple(name for name in self.numeric if name not in others)
        if not (categorical or numeric):
            msg = (
                f"on-demand features {sorted(map(str, chosen))}: expected something for the model to read, nothing "
                f"is left; choose among {sorted(self.on_demand)}, or give a column of the signature an encoding"
            )
            raise UnknownFeatureError(msg)
        return replace(
            self,
            categorical=categorical,
            vocabularies={name: self.vocabularies[name] for name in self.vocabularies if name in categorical.values()},
            numeric=numeric,
        )

    @property
    def vocabulary_sizes(self) -> dict[str, int]:
        """Vocabulary → number of indices, missing and unknown included."""
        return {name: vocabulary.size for name, vocabulary in self.vocabularies.items()}

    def unknown_dropout(self, column: str, rate: float, seed: int) -> UnknownDropout:
        """Return the layer that takes a share of a column's terms for unknown ones in training."""
        vocabulary = self.vocabularies[self.categorical[column]]
        return UnknownDropout(rate, seed, vocabulary.terms, vocabulary.buckets)

    def run(self, columns: Columns, signature: Signature) -> Columns:
        """Encode rows, by batches: TensorFlow's texts are three times as large as what becomes of them."""
        rows = len(next(iter(columns.values())))
        encoded: Columns = {}
        for start in range(0, rows, _BATCH):
            batch = {name: values[start : start + _BATCH] for name, values in columns.items()}
            part = self.model.predict_on_batch(to_tensors(batch, signature))
            for name, values in part.items():
                whole = encoded.setdefault(name, np.empty((rows, *values.shape[1:]), values.dtype))
                whole[start : start + _BATCH] = values
        return encoded


def build_encoder(signature: Signature, transforms: Transforms) -> Encoded:
    """Return the encoder of a signature's raw columns.

    Every column is encoded alone; what combines columns of user and item takes one row of the user for many of items.

    Raises:
        UnknownFeatureError: No column has an encoding, and nothing is computed of any; or there is a column that
            nothing reads.
    """
    columns = EncodedColumns(signature, transforms, keras_inputs(signature))
    lookups = {
        name: VocabularyIndex(list(transforms.vocabularies[name]), sharing[0].buckets, name=f"{name}_vocabulary")
        for name, sharing in vocabularies(signature.input_columns).items()
    }
    rescaled = _rescaled(columns)
    for item in signature.inputs:
        _add_column(columns, item.column, item.scope, lookups, rescaled)
    for owner, name in ((Scope.USER, USER_SMOOTHED_MEAN), (Scope.ITEM, ITEM_SMOOTHED_MEAN)):
        count, mean = f"{owner.value}_event_count", f"{owner.value}_value_mean"
        if count in columns.inputs and mean in columns.inputs:
            columns.add_numbers(name, smoothed_mean(columns, count, mean, name), owner)
    add_on_demand(columns)
    sequences = add_sequences(columns)
    if not columns.outputs:
        names = [column.name for column in signature.input_columns]
        msg = f"signature {signature.model}: expected a column that has an encoding, received {names} without"
        raise UnknownFeatureError(msg)
    _check_all_are_read(columns)
    return Encoded(
        model=keras.Model(columns.inputs, columns.outputs, name="encoder"),
        scopes=columns.scopes,
        vocabularies=columns.vocabularies,
        categorical=columns.categorical,
        numeric=tuple(columns.numeric),
        on_demand={feature.name: feature.computation for feature in signature.on_demand},
        sequences=sequences,
    )


def _check_all_are_read(columns: EncodedColumns) -> None:
    """Refuse columns that would be sent with every request for nothing."""
    signature = columns.signature
    given = {ITEM_ID.name, REQUEST_TIME.name}  # of every request, whatever the spec's features are
    read = columns.outputs.keys() | given | {name for feature in signature.on_demand for name in feature.inputs}
    if unread := [column.name for column in signature.input_columns if column.name not in read]:
        msg = (
            f"signature {signature.model}: expected columns with an encoding, or of which something is computed, "
            f"received {unread} without; take them out of the spec's features, or add those that they go beside"
        )
        raise UnknownFeatureError(msg)


def _add_column(
    columns: EncodedColumns,
    column: Column,
    scope: Scope,
    lookups: dict[str, VocabularyIndex],
    rescaled: dict[str, Any],
) -> None:
    """Add what a raw column's encoding makes of it; what has none is read beside others, or not at all."""
    name, values = column.name, columns.inputs[column.name]
    missing = _missing(column)
    if column.encoding in TERM_ENCODINGS:
        lookup = lookups[column.vocabulary]
        vocabulary = Vocabulary(len(lookup.vocabulary), lookup.buckets)
        if column.encoding is Encoding.VOCABULARY:
            columns.add_indices(name, lookup(values), scope, column.vocabulary, vocabulary)
        else:
            columns.add_numbers(name, Indicator(vocabulary.size, name=f"{name}_indicator")(lookup(values)), scope)
    elif column.encoding is Encoding.HASHED:
        indices = HashedIndex(column.buckets, name=f"{name}_hash")(values)
        columns.add_indices(name, indices, scope, name, Vocabulary(column.buckets))
    elif column.encoding is Encoding.QUANTILES:
        boundaries = list(columns.transforms.boundaries[name])
        indices = QuantileIndex(boundaries, missing, column.curve.value, name=f"{name}_bucket")(values)
        columns.add_indices(name, indices, scope, name, Vocabulary(len(boundaries) + 1))
    elif column.encoding in SCALE_ENCODINGS:
        columns.add_numbers(name, rescaled[name], scope)
    elif column.encoding is Encoding.NORM:
        columns.add_numbers(name, VectorNorm(column.norm, missing, name=f"{name}_norm")(values), scope)


def _rescaled(columns: EncodedColumns) -> dict[str, Any]:
    """Return what becomes of the numbers that are moved and stretched, those of one scope in one go."""
    rescaled: dict[str, Any] = {}
    for scope in Scope:
        numbers = [each for each in columns.signature.scoped(scope) if each.encoding in SCALE_ENCODINGS]
        if numbers:
            layer = Rescale([_scaled(columns, each) for each in numbers], name=f"{scope.value}_rescaled")
            made = layer(*(columns.inputs[each.name] for each in numbers))
            rescaled |= {each.name: tensor for each, tensor in zip(numbers, made, strict=True)}
    return rescaled


def _scaled(columns: EncodedColumns, column: Column) -> Scaled:
    scaling = columns.transforms.scalings[column.name]
    return Scaled(scaling.centre, scaling.scale, _missing(column), column.curve.value, scaling.lowest, scaling.highest)


def _missing(column: Column) -> float:
    return -1.0 if column.missing is None or isinstance(column.missing, str) else float(column.missing)
