"""What the encoder has made so far: indices and numbers, each with whom it describes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from models.layers.vocabulary_index import index_count

if TYPE_CHECKING:
    from feature_repo.contracts.signatures import Scope, Signature
    from models.transforms import Transforms


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """How many indices there are of what."""

    terms: int
    """Terms that are told apart; their indices begin at 2."""
    buckets: int = 1
    """Indices that unknown terms share: 1, and those after the last term."""

    @property
    def size(self) -> int:
        """All indices, missing and unknown included."""
        return index_count(self.terms, self.buckets)


@dataclass(slots=True)
class EncodedColumns:
    """Encoded columns by name, added one after another."""

    signature: Signature
    transforms: Transforms
    inputs: dict[str, Any]
    """Raw columns, symbolic."""
    outputs: dict[str, Any] = field(default_factory=dict)
    scopes: dict[str, Scope] = field(default_factory=dict)
    vocabularies: dict[str, Vocabulary] = field(default_factory=dict)
    categorical: dict[str, str] = field(default_factory=dict)
    numeric: list[str] = field(default_factory=list)

    def scope_of(self, raw: str) -> Scope:
        """Return whom a raw column describes."""
        (scope,) = (item.scope for item in self.signature.inputs if item.column.name == raw)
        return scope

    def add(self, name: str, tensor: Any, scope: Scope) -> None:
        """Add a column that models find by its name."""
        self.outputs[name], self.scopes[name] = tensor, scope

    def add_numbers(self, name: str, tensor: Any, scope: Scope) -> None:
        """Add float32 `[batch, n]`: numbers about 0."""
        self.add(name, tensor, scope)
        self.numeric.append(name)

    def add_indices(self, name: str, tensor: Any, scope: Scope, vocabulary: str, indices: Vocabulary) -> None:
        """Add int32 `[batch]` or `[batch, length]`: indices into a vocabulary."""
        self.add(name, tensor, scope)
        self.categorical[name], self.vocabularies[vocabulary] = vocabulary, indices
