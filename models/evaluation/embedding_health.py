"""Whether a model's embeddings are in order: how long vectors are, which were never trained, and which terms share one.

Tables are found in the graph: a Keras Embedding layer that looks up indices of one vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pandas as pd

from feature_repo.contracts.columns import Encoding
from models.layers.hashed_index import HashedIndex
from models.layers.vocabulary_index import FIRST_TERM_INDEX, VocabularyIndex

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from feature_repo.contracts.columns import Column
    from feature_repo.contracts.signatures import Signature
    from models.encoding import Encoded
    from models.inputs import Columns
    from models.training.fit import Fitted
    from models.transforms import Transforms


@dataclass(frozen=True, slots=True)
class Table:
    """One embedding table of a fitted model."""

    name: str
    """The weight's path, such as `item_embedding/embeddings`."""
    vocabulary: str
    columns: tuple[str, ...]
    """Encoded columns whose indices are looked up."""
    vectors: NDArray[np.floating]
    """`[indices, size]`."""


def tables(scorer: Any, encoded: Encoded) -> Iterator[Table]:
    """Yield the tables of a fitted scorer that hold a vector for each index of a vocabulary of the encoder."""
    for layer in scorer._flatten_layers(include_self=False):  # noqa: SLF001 - `layers` does not look into nested models
        if not isinstance(layer, keras.layers.Embedding):
            continue
        behind = {name for node in layer._inbound_nodes for each in node.input_tensors for name in _inputs_of(each)}  # noqa: SLF001
        columns = tuple(sorted(behind & encoded.categorical.keys()))
        vocabularies = {encoded.categorical[column] for column in columns}
        if len(vocabularies) != 1:
            continue
        (vocabulary,) = vocabularies
        vectors = np.asarray(layer.embeddings.value)
        if len(vectors) == encoded.vocabulary_sizes[vocabulary]:
            yield Table(layer.embeddings.path, vocabulary, columns, vectors)


def _inputs_of(tensor: Any) -> set[str]:
    """Return the names of the graph's inputs that a symbolic tensor is computed of."""
    history = tensor._keras_history  # noqa: SLF001 - how Keras itself walks back
    if isinstance(history.operation, keras.layers.InputLayer):
        return {str(history.operation.name)}
    node = history.operation._inbound_nodes[history.node_index]  # noqa: SLF001
    return {name for each in node.input_tensors for name in _inputs_of(each)}


def embedding_health(fitted: Fitted, train: Columns, signature: Signature, transforms: Transforms) -> dict[str, Any]:
    """Return `tables`, each with norms and the number of its terms that no train row has, and `hashed` columns.

    A term that no train row has keeps the vector that it was given before the fit. Missing and unknown are no terms.

    Args:
        fitted: The model, and how often its fit saw each index.
        train: Raw columns of the train rows.
        signature: What the model takes.
        transforms: What its encodings have fitted.
    """
    return {
        "tables": [_of_table(table, fitted.seen) for table in tables(fitted.scorer, fitted.encoded)],
        "hashed": [
            _collisions(column, train[column.name], transforms) for column in signature.input_columns if _hashes(column)
        ],
    }


def _of_table(table: Table, seen: Mapping[str, NDArray[np.int64]]) -> dict[str, Any]:
    norms = np.linalg.norm(table.vectors.astype(np.float64), axis=1)
    known = [seen[column] for column in table.columns if column in seen]
    untrained = int((np.sum(known, axis=0)[FIRST_TERM_INDEX:] == 0).sum()) if known else None
    return {
        "table": table.name,
        "vocabulary": table.vocabulary,
        "columns": list(table.columns),
        "terms": len(norms) - FIRST_TERM_INDEX,
        "size": table.vectors.shape[1],
        "norm_min": float(norms.min()),
        "norm_median": float(np.median(norms)),
        "norm_max": float(norms.max()),
        "untrained": untrained,
    }


def _hashes(column: Column) -> bool:
    return column.encoding is Encoding.HASHED or (column.encoding is Encoding.VOCABULARY and column.buckets > 1)


def _collisions(column: Column, values: NDArray[Any], transforms: Transforms) -> dict[str, Any]:
    """Return how many different terms the train rows have, and how many of them share an index with another."""
    terms = np.asarray(pd.unique(values.ravel()), object)
    terms = terms[terms != column.missing]
    layer = (
        HashedIndex(column.buckets)
        if column.encoding is Encoding.HASHED
        else VocabularyIndex(list(transforms.vocabularies[column.vocabulary]), column.buckets)
    )
    _, sharing = np.unique(np.asarray(layer(terms)) if len(terms) else [], return_counts=True)
    return {
        "column": column.name,
        "buckets": column.buckets,
        "terms": len(terms),
        "colliding": int(sharing[sharing > 1].sum()),
    }


def geometry_drift(before: NDArray[Any], after: NDArray[Any]) -> float:
    """Return how differently two tables place the same terms, `[terms, size]` each: 0 alike, 1 unrelated.

    It is 1 less the linear CKA (Kornblith et al. 2019): a fit that begins anew turns all vectors, which changes nothing
    that a model can see, and changes no figure here. Sizes may differ.
    """
    centred = [each.astype(np.float64) - each.mean(axis=0) for each in (before, after)]
    inner = np.linalg.norm(centred[0].T @ centred[1]) ** 2
    own = np.prod([np.linalg.norm(each.T @ each) for each in centred])
    return float(1 - inner / own) if own > 0 else float("nan")


def _holds(table: NDArray[Any] | None, terms: tuple[str, ...]) -> bool:
    """Tell whether a weight can be a table with a vector for each of these terms."""
    return table is not None and table.ndim == 2 and len(table) >= FIRST_TERM_INDEX + len(terms)  # noqa: PLR2004 - as a table


def drift_from(
    own: Mapping[str, NDArray[Any]],
    theirs: Mapping[str, NDArray[Any]],
    vocabularies: Mapping[str, str],
    own_terms: Mapping[str, tuple[str, ...]],
    their_terms: Mapping[str, tuple[str, ...]],
) -> dict[str, dict[str, float]]:
    """Return table → `drift` from another model's table of the same name, over the `terms` that both have.

    Args:
        own: Weight → values, of the candidate.
        theirs: The same of the other.
        vocabularies: Table → its vocabulary.
        own_terms: Vocabulary → its terms, of the candidate.
        their_terms: The same of the other.
    """
    found = {}
    for name, vocabulary in vocabularies.items():
        if not (own_terms.get(vocabulary) and their_terms.get(vocabulary)):
            continue
        if not _holds(theirs.get(name), their_terms[vocabulary]):
            continue  # another class of models may call a table of something else the same
        places = {term: place for place, term in enumerate(their_terms[vocabulary])}
        both = [(place, places[term]) for place, term in enumerate(own_terms[vocabulary]) if term in places]
        if len(both) < 3:  # noqa: PLR2004 - two points are always on one line
            continue
        mine, other = (np.array(rows) + FIRST_TERM_INDEX for rows in zip(*both, strict=True))
        drift = geometry_drift(theirs[name][other], own[name][mine])
        if np.isfinite(drift):
            found[name] = {"drift": drift, "terms": len(both)}
    return found
