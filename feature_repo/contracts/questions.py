"""Questions that lists are judged by: whom to ask at a moment of the past, what is known then, what they liked next.

An *origin* is a midnight inside the log. Everything that answers is made from events before it; the *answers* are what
users liked in the days that follow and had no event with before. The data plane writes `questions/<id>/`:

    manifest.json            `manifests.Questions`
    <origin>/                a folder for each origin, named like `cutoff_name`
        questions.parquet    QUESTIONS
        answers.parquet      ANSWERS
        simple_lists.parquet SIMPLE_LISTS; not of train origins
        user_fields.parquet  USER_FIELDS
        catalogue.parquet    as `pipelines publish` writes it
        snapshot.json        OnlineSnapshot; vectors and channels' tables: dated, below `embeddings/`, `channels/`

The serving plane answers them with its own engine (`python -m serving.lists`), and writes what it would have ranked
(`contracts.candidates`).
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from feature_repo.contracts.columns import Column, Dtype
from feature_repo.contracts.datasets import ITEM_ID, USER_ID, Dataset

if TYPE_CHECKING:
    from collections.abc import Mapping

LIST_DEPTH = 100
"""So many items a simple list has, where so many are left that the user has not seen."""

LONG_HISTORY = 5
"""So many events before the origin make a user one whose likes tell what to show."""

QUESTIONS_FILE = "questions.parquet"
ANSWERS_FILE = "answers.parquet"
SIMPLE_LISTS_FILE = "simple_lists.parquet"
USER_FIELDS_FILE = "user_fields.parquet"
CATALOGUE_FILE = "catalogue.parquet"
SNAPSHOT_FILE = "snapshot.json"


class Asked(StrEnum):
    """When a user is asked."""

    AT_ORIGIN = "at_origin"
    """At the origin itself."""
    BEFORE_NEXT = "before_next"
    """Just before the user's first event from the origin on, at test origins alone. Users are as streaming has them,
    items as of the origin."""


class Audience(StrEnum):
    """Whom a list is for: what does best for the ones may be bad for the others."""

    KNOWN = "known"
    """Users of LONG_HISTORY events or more."""
    NEW = "new"
    """All others, those of whom nothing is known among them."""


class Role(StrEnum):
    """What an origin is for."""

    TRAIN = "train"
    """Models that order lists learn from its answers, which end before the first validation origin."""
    VALIDATION = "validation"
    """Variants are chosen on it. Its answers end before the first test origin."""
    TEST = "test"
    """The chosen ones are judged on it, once."""


QUESTION_ID = Column("question_id", Dtype.INT64, "Number of the question at its origin")
ASKED = Column("asked", Dtype.STRING, "When: a value of `Asked`")
ASKED_TIME = Column("asked_time", Dtype.TIMESTAMP, "The moment of the question, before which everything is known")
HISTORY = Column("history", Dtype.INT64, "How many events the user has before the origin")

QUESTIONS = Dataset(
    name="questions",
    columns=(QUESTION_ID, USER_ID, ASKED, ASKED_TIME, HISTORY),
    key=(QUESTION_ID.name,),
    sort=(QUESTION_ID.name,),
    partitioned_by_event_date=False,
    meaning="Who is asked when: each user once at the origin, and at test origins once more",
)

ANSWERS = Dataset(
    name="answers",
    columns=(
        USER_ID,
        ITEM_ID,
        Column("liked_time", Dtype.TIMESTAMP, "When the user liked it first from the origin on"),
        Column("is_new", Dtype.INT64, "1 where nobody has an event with the item before the origin"),
    ),
    key=(USER_ID.name, ITEM_ID.name),
    sort=(USER_ID.name, ITEM_ID.name),
    partitioned_by_event_date=False,
    meaning="What the asked users liked in the days after the origin, and had no event with before",
)

USER_FIELDS = Dataset(
    name="user_fields",
    columns=(
        QUESTION_ID,
        Column("field", Dtype.BYTES, "Field of the user's hash in Redis"),
        Column("stored", Dtype.BYTES, "What the field would hold"),
    ),
    key=(QUESTION_ID.name, "field"),
    sort=(QUESTION_ID.name, "field"),
    partitioned_by_event_date=False,
    meaning="The bytes that Redis would hold of the asked user at the moment of the question",
)

METHOD = Column("method", Dtype.STRING, "Name of the simple list: a value of `SimpleList`")
VARIANT = Column("variant", Dtype.STRING, "Its parameters, for people; empty where there is nothing to choose")

SIMPLE_LISTS = Dataset(
    name="simple_lists",
    columns=(
        METHOD,
        VARIANT,
        USER_ID,
        Column("items", Dtype.STRING, f"The first {LIST_DEPTH} items that the user has not seen", length=-1),
    ),
    key=(METHOD.name, VARIANT.name, USER_ID.name),
    sort=(METHOD.name, VARIANT.name, USER_ID.name),
    partitioned_by_event_date=False,
    meaning="What lists that anybody could make would show the asked users",
)


class SimpleList(StrEnum):
    """Lists that need no model: each is in every table beside the list that is served."""

    MOST_LIKED = "most liked"
    MOST_LIKED_7 = "most liked, 7 days"
    MOST_LIKED_30 = "most liked, 30 days"
    RECENCY = "most liked, recency-weighted"
    ITEM_CF = "ItemCF"
    EASE = "EASE"

    @property
    def is_personal(self) -> bool:
        """Whether what it shows depends on what the user liked."""
        return self in {SimpleList.ITEM_CF, SimpleList.EASE}


UNTUNED: Mapping[SimpleList, str] = MappingProxyType(
    {
        SimpleList.RECENCY: "half-life 30 days",
        SimpleList.ITEM_CF: "shrinkage 0",
        SimpleList.EASE: "λ 500",
    }
)
"""The variant that counts where no validation origin has a question; a list that is not here has one variant alone."""
