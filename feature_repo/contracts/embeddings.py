"""The kinds of item embeddings: how each is fitted, what its snapshot holds, and its two feature groups.

A snapshot is dated: fitted on what was liked before a cutoff, written once. Its vectors serve recall. They never enter
ranking raw: a fit is future knowledge for labels before its cutoff, and two fits lie in rotated spaces.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from feature_repo.contracts.columns import Column, Dtype, Scalar
from feature_repo.contracts.datasets import ITEM_ID, USER_ID, Dataset
from feature_repo.contracts.features import LAST_ITEMS, FeatureGroup, Freshness

if TYPE_CHECKING:
    from collections.abc import Iterable

EMBEDDING_SIZE = 32
"""Numbers of a vector, of the kinds that are fitted here. What is online says itself how many its vectors have."""

VECTOR = Column("embedding", Dtype.FLOAT32, "Vector, fitted up to a cutoff, as long as the others of it", length=-1)

ITEM_EMBEDDINGS = Dataset(
    name="item_embeddings",
    columns=(ITEM_ID, VECTOR),
    key=(ITEM_ID.name,),
    sort=(ITEM_ID.name,),
    partitioned_by_event_date=False,
    meaning="A dated snapshot of item embeddings of one kind, for recall. Never raw in ranking",
)

USER_EMBEDDINGS = Dataset(
    name="user_embeddings",
    columns=(USER_ID, VECTOR),
    key=(USER_ID.name,),
    sort=(USER_ID.name,),
    partitioned_by_event_date=False,
    meaning="The users' vectors made from such a snapshot, each from the items that the user liked last",
)

_OWNER = "data plane: embeddings"

RECENCY_DECAY = 0.9
"""The weight of a liked item in its user's vector, in proportion to that of the one liked after it."""


@dataclass(frozen=True, slots=True)
class SkipGram:
    """How vectors are learned from sequences of items."""

    window: int
    """Items on either side that an item has to predict."""
    epochs: int
    """Passes over the sequences."""
    learning_rate: float
    """At the start; it falls to nearly nothing, in proportion to what is left to do."""
    negative: int
    """Items drawn as counter-examples for each example."""
    negative_exponent: float
    """Counter-examples are drawn by frequency to this power: 1 is by frequency, 0 all alike."""
    least_likes: int
    """An item that was liked less often has no vector: nothing could be learned of it."""
    seed: int


@dataclass(frozen=True, slots=True)
class Walks:
    """How sequences are walked on the item graph."""

    per_item: int
    """Walks that start at each item."""
    length: int
    """Items of a walk, its first one included; a dead end ends it sooner."""
    reach: int
    """An item has an edge to each of so many that followed it in a session."""
    session_minutes: int
    """A user's session ends with a longer pause."""
    least_count: int
    """Edges that were seen less often are chance."""
    successors: int
    """Of an item's edges so many are kept, the heaviest."""
    damping: float
    """How much the weight of an edge falls with the popularity of where it leads: 0 not at all, 1 in proportion."""
    directed: bool = False
    """Whether walks go along time only; else against it, too, and an edge's count is that of both directions."""
    p: float = 1.0
    """Return parameter: the greater, the seldomer a walk goes straight back. 1 with q = 1 is DeepWalk."""
    q: float = 1.0
    """In-out parameter: below 1 walks go outward, above 1 they stay near."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """One kind of item embedding. It has a snapshot folder, a recall channel and two feature views of its own."""

    name: str
    meaning: str
    skip_gram: SkipGram
    walks: Walks | None = None
    """None where the sequences are what users liked, in order of time."""
    side_information: bool = field(default=False, kw_only=True)
    """Whether an item's vector is a mean of its own and its attributes', so that new items have one, too."""
    revision: int = field(default=1, kw_only=True)
    """Raised by whoever changes how the vectors are computed from the same parameters."""

    @property
    def parameters(self) -> dict[str, Scalar]:
        """Whatever decides the values, for the hash in the feature views' names."""
        walks = {} if self.walks is None else {f"walk_{name}": value for name, value in asdict(self.walks).items()}
        side: dict[str, Scalar] = {"side_information": True} if self.side_information else {}
        return {**asdict(self.skip_gram), **walks, **side, "size": EMBEDDING_SIZE, "revision": self.revision}

    @property
    def item_group(self) -> FeatureGroup:
        """The items' vectors as features."""
        return FeatureGroup(
            name=f"item_{self.name}",
            entity=ITEM_ID,
            freshness=Freshness.LATEST,
            features=_vector_and_fit(f"item_{self.name}", f"The item's {self.name} vector, of unit length"),
            meaning=f"{self.meaning}. For recall, never raw in ranking",
            parameters=self.parameters,
            window="all time up to the fit",
            source="events, items" if self.side_information else "events",
            owner=_OWNER,
        )

    @property
    def user_group(self) -> FeatureGroup:
        """The users' vectors as features."""
        meaning = f"Recency-weighted mean of the {self.name} vectors of the items liked last, of unit length"
        return FeatureGroup(
            name=f"user_{self.name}",
            entity=USER_ID,
            freshness=Freshness.LATEST,
            features=_vector_and_fit(f"user_{self.name}", meaning),
            meaning="Users in the space of the item vectors of the same fit. For recall, never raw in ranking",
            parameters={**self.parameters, "decay": RECENCY_DECAY},
            window=f"what was liked among the last {LAST_ITEMS} events",
            source=f"events, item_{self.name}",
            owner=_OWNER,
        )


def _vector_and_fit(name: str, meaning: str) -> tuple[Column, Column]:
    return (
        Column(name, Dtype.FLOAT32, meaning, length=EMBEDDING_SIZE, missing=0.0),
        Column(f"{name}_fit", Dtype.STRING, "SHA-256 of the snapshot: vectors of two fits do not compare", missing=""),
    )


_SEED = 20_161_101

_SEQUENCES = SkipGram(
    window=20, epochs=15, learning_rate=0.1, negative=5, negative_exponent=0.5, least_likes=3, seed=_SEED
)
_WALKED = SkipGram(window=5, epochs=5, learning_rate=0.1, negative=5, negative_exponent=0.5, least_likes=3, seed=_SEED)
_WALKS = Walks(per_item=10, length=20, reach=20, session_minutes=30, least_count=2, successors=30, damping=0.5)

ITEM2VEC = Embedding("item2vec", "Items that the same users liked one after the other lie close together", _SEQUENCES)
DEEPWALK = Embedding(
    "deepwalk", "Items that random walks over what followed what meet together lie close together", _WALKED, _WALKS
)
NODE2VEC = Embedding(
    "node2vec",
    "DeepWalk with walks that seldom go back and like to go outward",
    _WALKED,
    replace(_WALKS, p=4.0, q=0.5),
)
EGES = Embedding(
    "eges",
    "DeepWalk where an item is a weighted mean of itself and its attributes; a new item, of its attributes",
    replace(_WALKED, learning_rate=0.05),
    _WALKS,
    side_information=True,
)

EMBEDDINGS = {kind.name: kind for kind in (ITEM2VEC, DEEPWALK, NODE2VEC, EGES)}
"""Name → kind. Where one kind has to come first, it is the first of these that is there."""

EMBEDDING_GROUPS = tuple(group for kind in EMBEDDINGS.values() for group in (kind.item_group, kind.user_group))
"""The feature groups of every kind, fitted here or not."""


def embeddings_named(names: Iterable[str]) -> tuple[Embedding, ...]:
    """Return the kinds of some names, as declared in order; ValueError names one there is not, or that comes twice."""
    chosen = tuple(names)
    unknown = [name for name in chosen if name not in EMBEDDINGS]
    if unknown or not chosen or len(set(chosen)) != len(chosen):
        msg = f"embeddings: expected one or more of {', '.join(EMBEDDINGS)}, each once, received {','.join(chosen)!r}"
        raise ValueError(msg)
    return tuple(kind for name, kind in EMBEDDINGS.items() if name in chosen)
