"""The input layer of every ranking model: encoded columns as weights and vectors.

A *field* is one encoded column: of terms (one, or a list of them, which is averaged), or of numbers (a number with the
flag beside it that says whether it is missing). No model makes embeddings by itself:

    encoded columns ─┬─ linear(units)   a weight per term and number, summed    [batch, units]
                     ├─ weights()       the same, a field's by itself           [batch, fields, 1]
                     ├─ vectors(size)   one vector per field                    [batch, fields, size]
                     ├─ crossed(size)   per field, one for each other field     [batch, fields, fields, size]
                     ├─ flat(size)      the vectors of terms beside the numbers [batch, width]
                     └─ history(size)   a user's items, what else is known of each event, the candidate
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import keras
from keras import ops
from pydantic import Field

from feature_repo.contracts.signatures import Scope
from models.errors import BuildError
from models.layers.grouped_numbers import GroupedNumbers
from models.layers.mean_pooling import MeanPooling
from models.layers.numeric_sums import NumericSums
from models.layers.sequence_ages import AGE_COUNT
from models.layers.term_embedding import TermEmbedding
from models.layers.vocabulary_index import MISSING_INDEX
from models.ranking.base import KerasConfig, KerasModel, Widths, encoded_inputs
from models.sequences import Sequence

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from models.encoding import Encoded


class FieldsConfig(KerasConfig):
    """What the config of a model of fields holds."""

    l2: float = Field(default=1e-5, ge=0, le=1_000)
    """Weight decay on vectors, and on the linear weights of terms."""
    unknown_rate: float = Field(default=0.3, ge=0, lt=1)
    """Share of terms that are taken for unknown in training."""
    spread: float = Field(default=0.01, gt=0, le=1)
    """Standard deviation of terms' first vectors: products of two start near 0."""


class VectorsConfig(FieldsConfig):
    """What the config of a model holds whose fields have vectors."""

    embedding_size: int = Field(default=8, ge=1, le=256)
    """Dimensions of every vector."""


class DeepConfig(VectorsConfig):
    """What the config of a model of fields with a perceptron holds."""

    hidden: Widths = (64, 32)
    """Widths of the perceptron's layers."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """After each of them."""
    batch_norm: bool = False
    """Whether each layer's outputs are normalised over the batch."""
    sizes: dict[str, Annotated[int, Field(ge=1, le=4096)]] = Field(default_factory=dict)
    """Column of terms → dimensions of its own, in a table of its own, where vectors stand one after the other."""


@dataclass(frozen=True, slots=True)
class History:
    """A user's last events, the latest first, beside the candidate; items and candidate in vectors of one table."""

    items: Any
    """float32 `[batch, length, size]`; zeros where there is none."""
    candidate: Any
    """float32 `[batch, size]`."""
    mask: Any
    """float32 `[batch, length]`: 1 where there is an item."""
    indices: Any
    """int32 `[batch, length]`: the items' indices; 0 where there is none."""
    told: Any = None
    """float32 `[batch, length, width]`: the vector of each event's type, that of its age, and what its value says, as
    far as the spec's features have them; zeros where there is no event. None where they have nothing."""
    ages: Any = None
    """int32 `[batch, length]`: indices of ages (`SequenceAges`); None where no times are known."""
    sessions: Any = None
    """int32 `[batch, length]`: indices of sessions, the latest first (`SessionsAgo`); None where none are known."""

    @property
    def events(self) -> Any:
        """Each item's vector, and behind it what is told of the event: float32 `[batch, length, size + width]`."""
        return self.items if self.told is None else ops.concatenate([self.items, self.told], axis=-1)


class Fields:
    """Encoded columns of a graph that is being built.

    Args:
        inputs: All that there are, symbolic: what a keras.Model of the graph takes.
        encoded: Those that the model reads.
        seed: Of the terms that are taken for unknown.
        unknown_rate: The share of them, in training.
        l2: Weight decay on vectors, and on the linear weights of terms.
        spread: Standard deviation of terms' first vectors.
        sizes: Column of terms → the size of its vector in `flat`, where that is its own.

    Raises:
        BuildError: `sizes` names a column that is none of terms.
    """

    def __init__(
        self,
        inputs: dict[str, Any],
        encoded: Encoded,
        seed: int,
        *,
        unknown_rate: float,
        l2: float,
        spread: float = 0.01,
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        self.inputs = inputs
        self.encoded = encoded
        self.seed = seed
        self._own_sizes = dict(sizes or {})
        self.unread_sizes = sorted(self._own_sizes)
        """Columns whose size of their own nothing has asked for yet."""
        if unknown := sorted(self._own_sizes.keys() - encoded.categorical.keys()):
            there = sorted(encoded.categorical)
            msg = f"sizes of {unknown}: expected columns of terms, received none such among {there}; mend the config"
            raise BuildError(msg)
        self._regulariser = keras.regularizers.L2(l2)
        self._l2, self._spread = l2, spread
        self.indices = {
            name: self.encoded.unknown_dropout(name, unknown_rate, seed)(self.inputs[name])
            for name in self.encoded.categorical
        }
        """Column of terms → int32 `[batch]` or `[batch, length]`."""
        numbers = [self.inputs[name] for name in self.encoded.numeric]
        self._number_sizes = tuple(int(each.shape[-1]) for each in numbers)
        self.numbers = ops.concatenate(numbers, axis=-1) if numbers else None
        """float32 `[batch, numbers]`; None where there are none."""
        self._tables: dict[str, dict[str, Any]] = {}
        self._pooled: dict[str, dict[str, Any]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The fields: columns of terms, then columns of numbers."""
        return (*self.encoded.categorical, *self.encoded.numeric)

    def check_pairs(self) -> None:
        """Raise BuildError where there is one field alone, of which there are no pairs."""
        if len(self.names) == 1:
            msg = f"expected two fields at least, received {self.names[0]} alone; give the spec more features"
            raise BuildError(msg)

    def linear(self, units: int = 1, name: str = "weight") -> Any:
        """Return `[batch, units]`: a weight per term and number and unit, summed; terms of a list are averaged."""
        parts = [keras.layers.Dense(units, name=name)(self.numbers)] if self.numbers is not None else []
        # One unit begins with nothing; several would stay alike.
        first = "zeros" if units == 1 else None
        parts += [self._own(column, units, name, first) for column in self.indices]
        return ops.sum(ops.stack(parts), axis=0)

    def weights(self, name: str = "weight") -> Any:
        """Return `[batch, fields, 1]`: each field's part of what `linear` sums, without its constant."""
        parts = [ops.expand_dims(self._own(column, 1, name, "zeros"), 1) for column in self.indices]
        return self._beside_numbers(parts, 1, name, l2=0.0)

    def vectors(self, size: int, name: str = "embedding") -> Any:
        """Return `[batch, fields, size]`: a vector per field; columns of one vocabulary share a table."""
        parts = [ops.stack(list(self.pooled(size, name).values()), axis=1)] if self.indices else []
        return self._beside_numbers(parts, size, name, l2=self._l2)

    def pooled(self, size: int, name: str = "embedding") -> dict[str, Any]:
        """Return column of terms → `[batch, size]`: its term's vector, or the mean of a list's."""
        if name not in self._pooled:
            lookup = self.tables(size, name)
            self._pooled[name] = {
                column: self._averaged(column, lookup(column), f"{column}_{name}_averaged") for column in self.indices
            }
        return dict(self._pooled[name])

    def number_sums(self, size: int, name: str = "numeric_embedding") -> list[tuple[Any, Any]]:
        """Return sum and sum of squares, `[batch, size]` each, of a vector per number; nothing where there is none."""
        return [] if self.numbers is None else [NumericSums(size, self._l2, name=name)(self.numbers)]

    def crossed(self, size: int, name: str = "crossed") -> Any:
        """Return `[batch, fields, fields, size]`: at `[i, j]` the vector that field i has for field j.

        Raises:
            BuildError: There is one field alone.
        """
        self.check_pairs()
        count = len(self.names)
        parts = [ops.expand_dims(self._own(column, count * size, name), 1) for column in self.indices]
        crossed = self._beside_numbers(parts, count * size, name, l2=self._l2)
        return ops.reshape(crossed, (-1, count, count, size))

    def flat(self, size: int, name: str = "embedding") -> Any:
        """Return `[batch, width]`: the vectors of terms, one after the other, then the numbers as they are.

        A column whose size is its own has a table of its own, too.
        """
        own = self._own_sizes
        self.unread_sizes = []
        shared = self.pooled(size, name) if self.indices.keys() - own.keys() else {}
        parts = [
            self._own(column, own[column], f"own_{name}") if column in own else shared[column]
            for column in self.indices
        ]
        if self.numbers is not None:
            parts.append(self.numbers)
        return ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]

    def has(self, scope: Scope) -> bool:
        """Tell whether a column describes the user, or the item."""
        return scope in {self.encoded.scopes[name] for name in self.names}

    def of(self, scope: Scope, size: int, name: str = "embedding", only: Collection[str] = ()) -> Any:
        """Return `[batch, width]`: what `flat` returns, of the columns that describe the user or the item alone.

        Args:
            scope: Whom they describe.
            size: Of the vectors.
            name: Of their table.
            only: Columns that are enough, where some of them are there.

        Raises:
            BuildError: There is none.
        """
        pooled = self.pooled(size, name)
        own = {column for column in self.names if self.encoded.scopes[column] is scope}
        own = own.intersection(only) or own
        parts = [pooled[column] for column in self.indices if column in own]
        parts += [self.inputs[column] for column in self.encoded.numeric if column in own]
        if not parts:
            msg = f"expected columns of the {scope.value}, received {sorted(self.names)}; give the spec such features"
            raise BuildError(msg)
        return ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]

    def history(self, size: int, name: str = "embedding", *, told_ages: bool = True) -> History:
        """Return the user's last events and the candidate: a list and a term that share a vocabulary.

        Of several lists it is the longest that the spec's features have: `user_sequence_items` before
        `user_last_items`; of others, the first.

        Args:
            size: Of the vectors.
            name: Of the table of items.
            told_ages: Whether `told` has the ages; not where the model reads `ages` itself.

        Raises:
            BuildError: There is no such pair of columns.
        """
        sequence, candidate = self._sequence_and_candidate()
        items, inputs = sequence.items, self.inputs
        lookup = self.tables(size, name)
        mask = ops.cast(ops.not_equal(self.indices[items], MISSING_INDEX), "float32")
        ages = inputs[sequence.times] if sequence.times else None
        told = [lookup(sequence.types)] if sequence.types else []
        if ages is not None and told_ages:
            told.append(self._embedding(AGE_COUNT, size, f"age_{name}")(ages))
        if sequence.values:
            told.append(inputs[sequence.values])
        there = ops.expand_dims(mask, -1)
        return History(
            lookup(items) * there,
            self._averaged(candidate, lookup(candidate), f"{candidate}_{name}_candidate"),
            mask,
            self.indices[items],
            ops.concatenate(told, axis=-1) * there if told else None,
            ages,
            inputs[sequence.sessions] if sequence.sessions else None,
        )

    def _sequence_and_candidate(self) -> tuple[Sequence, str]:
        """Return the columns of the longest list of items, and that of the candidate."""
        known = {each.items: each for each in self.encoded.sequences}
        found = [
            (items, candidate)
            for items, vocabulary in self.encoded.categorical.items()
            for candidate, other in self.encoded.categorical.items()
            if vocabulary == other and self._is_list(items) and not self._is_list(candidate)
            if (self.encoded.scopes[items], self.encoded.scopes[candidate]) == (Scope.USER, Scope.ITEM)
        ]
        if not found:
            msg = (
                "expected a list of the user's and a term of the item's of one vocabulary, such as user_last_items and "
                f"item_id, received {sorted(self.names)}; give the spec such features"
            )
            raise BuildError(msg)
        order = [*known, *(items for items, _ in found if items not in known)]
        items, candidate = min(found, key=lambda pair: order.index(pair[0]))
        return known.get(items, Sequence(items)), candidate

    def tables(self, size: int, name: str = "embedding") -> Callable[[str], Any]:
        """Return a look-up: column of terms → `[batch, size]` or `[batch, length, size]`.

        Columns of one vocabulary share a table, called `<vocabulary>_<name>`.
        """
        if name not in self._tables:
            self._tables[name] = {
                vocabulary: self._table(vocabulary, size, f"{vocabulary}_{name}")
                for vocabulary in self.encoded.vocabularies
            }
        tables = self._tables[name]
        return lambda column: tables[self.encoded.categorical[column]](self.indices[column])

    def _beside_numbers(self, parts: list[Any], size: int, name: str, *, l2: float) -> Any:
        """Return `[batch, fields, size]`: the parts of terms, then a vector for each column of numbers."""
        if self.numbers is not None:
            grouped = GroupedNumbers(self._number_sizes, size, l2, name=f"numbers_{name}")
            parts = [*parts, grouped(self.numbers)]
        return ops.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]

    def _is_list(self, column: str) -> bool:
        return len(self.inputs[column].shape) > 1

    def _own(self, column: str, size: int, name: str, initialiser: str | None = None) -> Any:
        """Return `[batch, size]` of a table that the column has for itself."""
        table = self._table(self.encoded.categorical[column], size, f"{column}_{name}", initialiser)
        return self._averaged(column, table(self.indices[column]), f"{column}_{name}_averaged")

    def _averaged(self, column: str, vectors: Any, name: str) -> Any:
        return MeanPooling(name=name)(vectors, self.indices[column])

    def _table(self, vocabulary: str, size: int, name: str, initialiser: str | None = None) -> Any:
        return self._embedding(self.encoded.vocabulary_sizes[vocabulary], size, name, initialiser)

    def _embedding(self, count: int, size: int, name: str, initialiser: str | None = None) -> Any:
        return TermEmbedding(
            count,
            size,
            embeddings_initializer=initialiser or keras.initializers.RandomNormal(stddev=self._spread),
            embeddings_regularizer=self._regulariser,
            name=name,
        )


FieldsLike = TypeVar("FieldsLike", bound=FieldsConfig)


class FieldsModel(KerasModel[FieldsLike]):
    """A model that says what logit its fields give."""

    @abstractmethod
    def logit(self, fields: Fields) -> Any:
        """Return the logit, `[batch, 1]`."""

    def fields(self, encoded: Encoded, seed: int) -> Fields:
        """Return what the model reads of the encoded columns, as its config has it."""
        config = self.config
        sizes = config.sizes if isinstance(config, DeepConfig) else {}
        return Fields(
            encoded_inputs(encoded),
            self.reading(encoded),
            seed,
            unknown_rate=config.unknown_rate,
            l2=config.l2,
            spread=config.spread,
            sizes=sizes,
        )

    def build(self, encoded: Encoded, seed: int) -> Any:
        """Return the graph of the logit."""
        fields = self.fields(encoded, seed)
        return self.graph_of(fields, self.logit(fields))

    def graph_of(self, fields: Fields, logits: Any) -> Any:
        """Return the keras.Model of these logits; BuildError where they have no use for what the config says."""
        if fields.unread_sizes:
            msg = (
                f"sizes of {fields.unread_sizes}: expected none for model {self.name}, all of whose vectors have one "
                "size; take them out of the config"
            )
            raise BuildError(msg)
        return keras.Model(fields.inputs, logits, name=self.name)


def perceptron(
    values: Any,
    config: DeepConfig,
    name: str = "deep",
    widths: Widths | None = None,
    activation: Callable[..., Any] = keras.layers.ReLU,
) -> Any:
    """Return the last hidden layer, `[batch, width]`, of layers over `values`, `[batch, ...]`, each with dropout.

    Args:
        values: What the first layer sees.
        config: Dropout, normalisation, and widths where none are given.
        name: Of the layers, which are numbered.
        widths: Of the layers.
        activation: The class of layers behind each of them.
    """
    kind = activation.__name__.lower()
    for layer, width in enumerate(config.hidden if widths is None else widths):
        values = keras.layers.Dense(width, name=f"{name}_{layer}")(values)
        if config.batch_norm:
            # Keras's own momentum, 0.99, sees too little of short epochs: the first validation rows would score amiss.
            norm = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_{layer}_norm")
            values = norm(values)
        values = activation(name=f"{name}_{layer}_{kind}")(values)
        values = keras.layers.Dropout(config.dropout, name=f"{name}_{layer}_dropout")(values)
    return values


def to_logit(values: Any, name: str = "logit") -> Any:
    """Return `[batch, 1]` of `[batch, width]`: a weight for each, and a bias."""
    return keras.layers.Dense(1, name=name)(values)
