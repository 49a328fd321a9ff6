"""The tables that the planes hand to one another: columns, keys and partitioning, declared once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from feature_repo.contracts.columns import Column, Dtype, Encoding, check_distinct, definition_hash
from feature_repo.contracts.schemas import Kind

if TYPE_CHECKING:
    from feature_repo.contracts.schemas import Attribute, Schema

USER_ID = Column(
    "user_id",
    Dtype.STRING,
    "The user, as the source names it; a model reads it where its spec's features name it",
    missing="",
    encoding=Encoding.VOCABULARY,
    vocabulary="user",
)
ITEM_ID = Column(
    "item_id",
    Dtype.STRING,
    "The item, as the source names it",
    missing="",
    encoding=Encoding.VOCABULARY,
    vocabulary="item",
)
EVENT_TIME = Column("event_time", Dtype.TIMESTAMP, "When it happened")
EVENT_TYPE = Column("event_type", Dtype.STRING, "What happened: an event type of the schema")
VALUE = Column("value", Dtype.FLOAT32, "How strongly, as the schema says: the stars of a rating, the quantity bought")


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
        check_distinct(f"columns of the dataset {self.name}", names)
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

OTHER_USER_ID = Column("other_user_id", Dtype.STRING, "Whom the user follows", missing="")
SINCE = Column("since", Dtype.TIMESTAMP, "Since when; the beginning of 1970 where the source does not say")

RELATIONS = Dataset(
    name="relations",
    columns=(USER_ID, OTHER_USER_ID, SINCE),
    key=("user_id", "other_user_id"),
    sort=("user_id", "other_user_id"),
    partitioned_by_event_date=False,
    meaning="Who follows whom: friends, whom somebody trusts or has subscribed to",
)


def relation_datasets(schema: Schema) -> tuple[Dataset, ...]:
    """Return the table of relations, if the schema has any."""
    return (RELATIONS,) if schema.has_relations else ()


ITEMS, USERS = "items", "users"
"""The names of the tables that depend on the schema."""

TITLE = Column("title", Dtype.STRING, "What the item is called, for people; its id where the source has no name")


def attribute_column(attribute: Attribute) -> Column:
    """Return the stored column of an attribute."""
    match attribute.kind:
        case Kind.NUMERIC:
            return Column(attribute.name, Dtype.FLOAT32, attribute.meaning, nullable=True)
        case Kind.MULTI_VALUED:
            return Column(attribute.name, Dtype.STRING, attribute.meaning, length=-1)
        case Kind.CATEGORICAL | Kind.TEXT:
            return Column(attribute.name, Dtype.STRING, attribute.meaning, nullable=True)


def items_dataset(schema: Schema) -> Dataset:
    """Return the table of what can be recommended."""
    return Dataset(
        name=ITEMS,
        columns=(ITEM_ID, TITLE, *map(attribute_column, schema.item_attributes)),
        key=(ITEM_ID.name,),
        sort=(ITEM_ID.name,),
        partitioned_by_event_date=False,
        meaning="What can be recommended",
    )


def users_dataset(schema: Schema) -> Dataset:
    """Return the table of every user that the source describes or that has an event."""
    return Dataset(
        name=USERS,
        columns=(USER_ID, *map(attribute_column, schema.user_attributes)),
        key=(USER_ID.name,),
        sort=(USER_ID.name,),
        partitioned_by_event_date=False,
        meaning="Every user that the source describes or that has an event",
    )


def item_versions_dataset(schema: Schema) -> Dataset:
    """Return the table of what event rows had said of each item, day by day."""
    return _versions(items_dataset(schema))


def user_versions_dataset(schema: Schema) -> Dataset:
    """Return the table of what event rows had said of each user, day by day."""
    return _versions(users_dataset(schema))


def known_items_dataset(schema: Schema) -> Dataset:
    """Return the table that says what was known of items at a time: versions where attributes are derived."""
    return item_versions_dataset(schema) if schema.items_are_derived else items_dataset(schema)


def known_users_dataset(schema: Schema) -> Dataset:
    """Return the table that says what was known of users at a time: versions where attributes are derived."""
    return user_versions_dataset(schema) if schema.users_are_derived else users_dataset(schema)


def _versions(dataset: Dataset) -> Dataset:
    """Return the dated form of items or users: a row as of the end of each day on which anything of it changed.

    Stamped with the day's last microsecond, so that whoever takes the latest row strictly before a moment knows what
    was said on the days that were over by then, and nothing else.
    """
    key, *columns = dataset.columns
    return Dataset(
        name=f"{dataset.name.removesuffix('s')}_versions",
        columns=(key, EVENT_TIME, *columns),
        key=(key.name, EVENT_TIME.name),
        sort=(EVENT_TIME.name, key.name),
        partitioned_by_event_date=True,
        meaning=f"What event rows had said of {dataset.name} by the end of each day on which that changed",
    )


def observations_dataset(columns: tuple[Column, ...]) -> Dataset:
    """Return the table of what event rows say of items and users, where a source has no files of them.

    `columns` are its attributes, named `item_<attribute>` and `user_<attribute>`. Items and users are read off it.
    Other columns are another table.
    """
    return Dataset(
        name=f"observations_{definition_hash({'columns': [column.definition for column in columns]})}",
        columns=(USER_ID, ITEM_ID, EVENT_TYPE, EVENT_TIME, *columns),
        key=EVENTS.key,
        sort=EVENTS.sort,
        partitioned_by_event_date=True,
        meaning="What each event's row says of its item and its user",
    )


EXAMPLE_ID = Column("example_id", Dtype.INT64, "Position in the canonical order of the rows; the same in every file")
LABEL = Column(
    "label",
    Dtype.INT64,
    "1 where the event is a positive of at least the training set's label_min_value; of a candidate, where the user "
    "liked it after the question",
)
GROUP_ID = Column(
    "group_id",
    Dtype.INT64,
    "Rows that were, or could have been, one answer: those of one session of a user have the number of its first "
    "event, candidates that of their question",
)
DRAWN = Column(
    "is_drawn",
    Dtype.INT64,
    "1 where no event is behind the row: the item was drawn by popularity, or is a candidate that the user had nothing "
    "to do with",
)
WEIGHT = Column("sample_weight", Dtype.FLOAT32, "How much the row counts in training, beside 1")
"""What a training set's rows have beside the event and the features."""


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
    key=("file", "line", "column", "reason", "received"),
    sort=("file", "line", "column", "reason", "received"),
    partitioned_by_event_date=False,
    meaning="Rows that were refused by the last whole ingestion and the parts since, each with the reason",
)
