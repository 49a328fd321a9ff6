"""The part of the graph that has no weights: raw columns to indices and standardised numbers.

It is apart from the part that learns for two reasons: training encodes every row once instead of once per epoch, and
the `one_user` signature encodes the user once instead of once per candidate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras

from feature_repo.contracts.columns import Column, Encoding
from feature_repo.contracts.signatures import Scope, Signature
from models.inputs import Columns, keras_inputs, to_tensors
from models.layers.sequence_weights import SequenceWeights
from models.layers.smoothed_mean import SmoothedMean
from models.layers.standardise import Standardise
from models.layers.vocabulary_index import VocabularyIndex

if TYPE_CHECKING:
    from models.transforms import Transforms

PSEUDO_COUNT = 5.0
"""How many values of the prior mean a user or an item starts with; the same as in the mean baseline."""
USER_SMOOTHED_MEAN, ITEM_SMOOTHED_MEAN = "user_smoothed_mean", "item_smoothed_mean"
LAST_VALUES = "user_last_values"
_BATCH = 16_384


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the encoder hands to the part that learns."""

    model: Any
    """keras.Model: raw columns by name → encoded columns by name."""
    scopes: dict[str, Scope]
    """Encoded column → whom it describes."""
    vocabulary_sizes: dict[str, int]
    """Vocabulary → number of indices, missing and unknown included."""
    categorical: dict[str, str]
    """Encoded column of indices, `[batch]` or `[batch, length]` → its vocabulary."""
    numeric: tuple[str, ...]
    """Encoded columns `[batch, n]` of numbers about 0."""

    def run(self, columns: Columns, signature: Signature) -> Columns:
        """Encode rows, by batches so that memory stays bounded."""
        tensors = to_tensors(columns, signature)
        encoded: Columns = self.model.predict(tensors, batch_size=_BATCH, verbose=0)
        return encoded


def build_encoder(signature: Signature, transforms: Transforms) -> Encoded:
    """Return the encoder of a signature's raw columns. Every column is encoded alone, so batch sizes may differ."""
    inputs = keras_inputs(signature)
    lookups = {
        name: VocabularyIndex(list(terms), name=f"{name}_vocabulary") for name, terms in transforms.vocabularies.items()
    }
    outputs: dict[str, Any] = {}
    for column in signature.input_columns:
        if column.encoding is Encoding.VOCABULARY:
            outputs[column.name] = lookups[column.vocabulary](inputs[column.name])
        elif column.encoding in {Encoding.STANDARD, Encoding.LOG_STANDARD}:
            outputs[column.name] = _standardise(column, transforms)(inputs[column.name])
        elif column.name == LAST_VALUES:
            outputs[column.name] = SequenceWeights(transforms.prior_mean, name="user_last_weights")(inputs[column.name])
    numeric = [column.name for column in signature.input_columns if column.name in transforms.numeric]
    scopes = {item.column.name: item.scope for item in signature.inputs if item.column.name in outputs}
    for owner, name in ((Scope.USER, USER_SMOOTHED_MEAN), (Scope.ITEM, ITEM_SMOOTHED_MEAN)):
        count, mean = f"{owner.value}_event_count", f"{owner.value}_value_mean"
        if count in inputs and mean in inputs:
            outputs[name] = SmoothedMean(transforms.prior_mean, PSEUDO_COUNT, name=name)(inputs[count], inputs[mean])
            scopes[name] = owner
            numeric.append(name)
    return Encoded(
        model=keras.Model(inputs, outputs, name="encoder"),
        scopes=scopes,
        vocabulary_sizes={name: len(terms) + 2 for name, terms in transforms.vocabularies.items()},
        categorical={
            column.name: column.vocabulary
            for column in signature.input_columns
            if column.encoding is Encoding.VOCABULARY
        },
        numeric=tuple(numeric),
    )


def _standardise(column: Column, transforms: Transforms) -> Standardise:
    moments = transforms.numeric[column.name]
    missing = -1.0 if column.missing is None else float(column.missing)
    return Standardise(
        mean=moments.mean,
        std=moments.std,
        missing=missing,
        log=column.encoding is Encoding.LOG_STANDARD,
        name=f"{column.name}_standard",
    )
