"""The tables that the planes hand to one another: columns, keys and partitioning, declared once."""

from __future__ import annotations

from dataclasses import dataclass

from feature_repo.contracts.columns import Column, Dtype, Encoding

USER_ID = Column("user_id", Dtype.STRING, "The user, as the source names it", missing="")
ITEM_ID = Column(
    "item_id",
    Dtype.STRING,
    "The item, as the source names it",
    missing="",
    encoding=Encoding.VOCABULARY,
    vocabulary="item",
)
EVENT_TIME = Column("event_time", Dtype.TIMESTAMP, "When it happened")
EVENT_TYPE = Column("event_type", Dtype.STRING, "What happened: 'rating'")
VALUE = Column("value", Dtype.FLOAT32, "How strongly: the stars of a rating")

MIN_VALUE, MAX_VALUE = 0.5, 5.0
"""The range of a rating in stars, both ends included."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A stored table. `key` identifies a row; rows lie in the order of `sort`, so that equal content is equal bytes."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    sort: tuple[str, ...]
    partitioned_by_event_date: bool
    meaning: str

    def __post_init__(self) -> None:
        """Refuse keys that are not columns, and columns declared twice."""
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            msg = f"dataset {self.name}: a column is declared twice in {names}"
            raise ValueError(msg)
        for name in (*self.key, *self.sort):
            if name not in names:
                msg = f"dataset {self.name}: key or sort column {name!r} is not among its columns {names}"
                raise ValueError(msg)

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns, in their stored order."""
        return tuple(column.name for column in self.columns)


EVENTS = Dataset(
    name="events",
    columns=(USER_ID, ITEM_ID, EVENT_TYPE, VALUE, EVENT_TIME),
    key=("user_id", "item_id", "event_type", "event_time"),
    sort=("event_time", "user_id", "item_id", "event_type"),
    partitioned_by_event_date=True,
    meaning="What users did, checked and canonical",
)

ITEMS = Dataset(
    name="items",
    columns=(
        ITEM_ID,
        Column("title", Dtype.STRING, "The title shown to a person, without the release year"),
        Column("release_year", Dtype.INT64, "Year of release", nullable=True),
        Column("genres", Dtype.STRING, "Genres in the source's order; empty where it names none", length=-1),
    ),
    key=("item_id",),
    sort=("item_id",),
    partitioned_by_event_date=False,
    meaning="What can be recommended",
)

USERS = Dataset(
    name="users",
    columns=(
        USER_ID,
        Column("age", Dtype.INT64, "Age in years", nullable=True),
        Column("gender", Dtype.STRING, "As the source codes it", nullable=True),
        Column("occupation", Dtype.STRING, "As the source codes it", nullable=True),
    ),
    key=("user_id",),
    sort=("user_id",),
    partitioned_by_event_date=False,
    meaning="Every user that the source describes or that has an event",
)

QUARANTINE = Dataset(
    name="quarantine",
    columns=(
        Column("file", Dtype.STRING, "The source's file"),
        Column("line", Dtype.INT64, "Line in that file, counted from 1"),
        Column("column", Dtype.STRING, "The column at fault; empty when the whole line is"),
        Column("reason", Dtype.STRING, "Short code of the check that refused the row"),
        Column("expected", Dtype.STRING, "What the check wanted"),
        Column("received", Dtype.STRING, "What the row had, cut at 200 characters"),
    ),
    key=("file", "line", "column", "reason"),
    sort=("file", "line", "column", "reason"),
    partitioned_by_event_date=False,
    meaning="Rows of the last ingestion that were refused, each with the reason",
)
