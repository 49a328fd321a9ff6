"""What the API returns. The models describe it; `encode` writes it, because bytes made once are ten times as quick."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import orjson
from pydantic import BaseModel, Field

from feature_repo.contracts.objectives import OBJECTIVES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serving.recommender.catalogue import Catalogue


class Missing(StrEnum):
    """What an answer had to do without; `MEANINGS` says what that did to it."""

    UNKNOWN_USER = "unknown_user"
    REDIS = "redis"
    USER_FEATURES = "user_features"
    MODEL_SERVER = "model_server"
    RELEASE = "release"
    EMBEDDINGS = "embeddings"
    SNAPSHOT = "snapshot"
    INTERNAL = "internal"


_CHANNEL = "channel:"


def missing_channel(name: str) -> str:
    """Return what `degraded` says of a recall channel that the model reads and had to do without."""
    return f"{_CHANNEL}{name}"


MEANINGS = {
    Missing.UNKNOWN_USER: "nothing is known of this user, so a list for everybody is shown.",
    Missing.REDIS: "Redis did not answer in time: a list for everybody, less what is remembered as seen.",
    Missing.USER_FEATURES: "some of the user's features are absent, too old or unreadable.",
    Missing.MODEL_SERVER: "the model server did not answer in time, so the best simple list is shown.",
    Missing.RELEASE: "no promoted model fits the features that are online, so the best simple list is shown.",
    Missing.EMBEDDINGS: "no item vectors of some kind, of this item, or for this release, so neighbours are unknown.",
    Missing.SNAPSHOT: "the newest snapshot could not be loaded, or fits no release yet, so the one before answers.",
    Missing.INTERNAL: "a fault in the recommender, written to its log: a list for everybody.",
}


class Item(BaseModel):
    """One item of the answer."""

    item_id: str = Field(examples=["50"])
    title: str = Field(examples=["Star Wars"])
    attributes: dict[str, str | float | list[str] | None] = Field(
        description="What the source says of the item, by the attributes of its schema",
        examples=[{"release_year": 1977, "genres": ["Action", "Adventure", "Romance", "Sci-Fi", "War"]}],
    )
    score: float | None = Field(
        description="What the model's objective says, as a probability that the user would like it; null where nothing "
        "was ranked; similarity of similar items",
        examples=[0.87],
    )
    recalled_by: list[str] = Field(description="The channels that found it", examples=[["popular", "item2vec"]])
    reason: str | None = Field(
        description="Why it is shown, for a person; null where there is nothing to say that anybody would believe",
        examples=["because you liked Toy Story"],
    )


class Model(BaseModel):
    """What gave the scores."""

    name: str = Field(examples=["ml-100k.ranking"])
    version: str = Field(examples=["1"])
    objective: str = Field(
        description="What its scores say: "
        + "; ".join(f"`{name}`: {objective.score}" for name, objective in OBJECTIVES.items()),
        examples=["probability"],
    )


_DEGRADED = (
    "What the answer had to do without; empty when nothing. "
    + " ".join(f"`{word}`: {meaning}" for word, meaning in MEANINGS.items())
    + f" `{_CHANNEL}<name>`: this recall channel failed or could not be loaded, or the model reads its scores or ranks "
    "and it is not online, or is defined otherwise than when the model was trained; the items are found and ranked "
    "without."
)
MissingChannel = Annotated[str, Field(pattern=f"^{_CHANNEL}", examples=["channel:item2vec"])]


class Recommendation(BaseModel):
    """Answer of `/recommend/{user}`."""

    user: str = Field(examples=["196"])
    k: int = Field(examples=[10])
    items: list[Item] = Field(
        description="Best first; scores need not fall, for a personal order may have a share in the model's"
    )
    degraded: list[Missing | MissingChannel] = Field(description=_DEGRADED, examples=[[]])
    model: Model | None = Field(description="null where nothing was ranked")
    features_as_of: str = Field(
        description="Exclusive end of the interval that features and catalogue know", examples=["1998-04-23T00:00:00Z"]
    )
    channels_as_of: dict[str, str] = Field(
        description="Recall channel whose scores or ranks the model read → exclusive end of the interval that it knows",
        examples=[{"item2vec": "1998-04-23T00:00:00Z"}],
    )
    took_ms: dict[str, float] = Field(
        description="Milliseconds by stage", examples=[{"features": 0.4, "recall": 0.3, "ranking": 3.1, "total": 4.0}]
    )


class Similar(BaseModel):
    """Answer of `/similar/{item}`."""

    item: str = Field(examples=["1"])
    title: str = Field(examples=["Toy Story"])
    k: int = Field(examples=[10])
    items: list[Item]
    degraded: list[Missing] = Field(description=_DEGRADED, examples=[[]])
    features_as_of: str = Field(examples=["1998-04-23T00:00:00Z"])
    took_ms: dict[str, float] = Field(examples=[{"total": 0.2}])


@dataclass(frozen=True, slots=True)
class Shown:
    """One row of a slate."""

    position: int
    score: float | None
    recalled_by: list[str]
    reason: str | None


def encode_items(catalogue: Catalogue, slate: Sequence[Shown]) -> list[dict[str, object]]:
    """Return the rows of a slate with what a person reads, in the shape of `Item`."""
    return [
        {
            "item_id": catalogue.item_ids[row.position],
            "title": catalogue.titles[row.position],
            "attributes": catalogue.attributes[row.position],
            "score": row.score,
            "recalled_by": row.recalled_by,
            "reason": row.reason,
        }
        for row in slate
    ]


class Problem(BaseModel):
    """Every error body: what was wrong, and what to do."""

    object: str = Field(description="What the error is about", examples=["k"])
    expected: str = Field(examples=["a whole number from 1 to 100"])
    received: str = Field(examples=["'0'"])
    remedy: str = Field(examples=["Ask for ?k=10"])


class Part(BaseModel):
    """How one part does."""

    state: str = Field(description="ok, degraded, off, down or missing", examples=["ok"])
    detail: str = Field(examples=["snapshot of 1998-04-23T00:00:00Z: 1682 items, 943 users"])


class Readiness(BaseModel):
    """Answer of `/ready`."""

    ready: bool = Field(description="Whether there is anything to recommend")
    parts: dict[str, Part]


class NotReady(Problem, Readiness):
    """Answer of `/ready` when there is nothing to recommend."""


class Health(BaseModel):
    """Answer of `/health`."""

    status: str = Field(examples=["alive"])
    namespace: str = Field(examples=["ml-100k"])
    uptime_s: float = Field(examples=[12.5])


def encode(answer: object) -> bytes:
    """Write an answer as JSON."""
    return orjson.dumps(answer)


def problem_bytes(problem: ProblemDetail) -> bytes:
    """Write an error body."""
    return orjson.dumps(asdict(problem))


@dataclass(frozen=True, slots=True)
class ProblemDetail:
    """The content of a `Problem`."""

    object: str
    expected: str
    received: str
    remedy: str
