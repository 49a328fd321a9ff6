"""Events → label rows, in canonical order.

Explicit feedback labels itself: every counted event before the cutoff is a row, and a positive one has the label 1.

Implicit feedback shows only what users like: each positive event is a row with the label 1, followed by rows with the
label 0 for items drawn in its place. An item is drawn by drawing one of the counted events strictly before the row's
time, so that its chance is its popularity *at that time*; items that the user had an event with by then, of whatever
type, are passed over: who looked at an item, or sent it back, has met it. What is popular and yet not taken was more
likely seen and left, so that it says more than a random item. (Negative sampling as in Mikolov et al., "Distributed
Representations of Words and Phrases", 2013, with the plain frequency, not its power.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.datasets import (
    DRAWN,
    EVENT_TIME,
    EVENT_TYPE,
    EVENTS,
    EXAMPLE_ID,
    GROUP_ID,
    ITEM_ID,
    LABEL,
    USER_ID,
    VALUE,
    WEIGHT,
)
from feature_repo.contracts.features import SESSION_GAP_S
from feature_repo.contracts.on_demand import REQUEST_TIME
from feature_repo.contracts.schemas import Positive
from pipelines.feast_store.tables import microseconds
from pipelines.io.sql_text import identifier, literal, parquet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from feature_repo.contracts.schemas import Schema
    from pipelines.settings import Settings

LABEL_COLUMNS = (EXAMPLE_ID, USER_ID, ITEM_ID, EVENT_TIME, VALUE, LABEL, DRAWN, GROUP_ID, WEIGHT, REQUEST_TIME)

_JOINED = ", ".join(identifier(column.name) for column in LABEL_COLUMNS if column is not REQUEST_TIME)
"""What goes through the joins; whatever else a row has is put beside the result (`files.beside`)."""
_SECOND_US = 1_000_000
_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US
_DRAWS_PER_NEGATIVE = 3
"""So many items are drawn for each that is wanted: some the user has had already, some come twice."""
DRAWING, SAMPLING = "negatives-2", "samples-2"
"""Seeds, of which rows are drawn and which are left out. Raised by whoever changes how: both are in the set's id."""
_CHANCE = "chance"
"""A column of label rows that no training set has: a number of the event's own, by which its rows are left out."""
_EVENT = f"{USER_ID.name}, {ITEM_ID.name}, {EVENT_TIME.name}, {VALUE.name}"
_KEY = ", '|', ".join((USER_ID.name, ITEM_ID.name, EVENT_TYPE.name, microseconds(EVENT_TIME.name)))
"""What names an event, so that what is chosen by it does not depend on which other events there are."""
_EVENT_CHANCE = f"md5_number_lower(concat('{SAMPLING}', '|', {_KEY})) AS {_CHANCE}"
_REQUEST = f"{microseconds(EVENT_TIME.name)} // {_SECOND_US} AS {REQUEST_TIME.name}"
"""A label stands for a request that was made in its second, however old the features are."""


def labelled_positive(settings: Settings, schema: Schema) -> Positive:
    """Return what counts as a positive label: what the schema says, with another least value where one is set."""
    positive = schema.positive
    least = settings.label_min_value
    return positive if least is None else Positive(positive.event_types, least)


def explicit_labels(files: Sequence[Path], counted_types: Sequence[str], positive: Positive) -> str:
    """Return the query for a label row of every counted event in `files`."""
    return (
        f"WITH {_counted(files, counted_types, positive)} "  # noqa: S608 - names are quoted
        f"SELECT position AS {EXAMPLE_ID.name}, {_EVENT}, {LABEL.name}, 0::BIGINT AS {DRAWN.name}, {GROUP_ID.name}, "
        f"{_EVENT_CHANCE} FROM counted ORDER BY {EXAMPLE_ID.name}"
    )


def positive_labels(files: Sequence[Path], counted_types: Sequence[str], positive: Positive) -> str:
    """Return the query for a label row of every positive event in `files`: what a retrieval model learns from."""
    return (
        f"WITH {_counted(files, counted_types, positive)} "  # noqa: S608 - names are quoted
        f"SELECT row_number() OVER (ORDER BY position) - 1 AS {EXAMPLE_ID.name}, {_EVENT}, {LABEL.name}, "
        f"0::BIGINT AS {DRAWN.name}, {GROUP_ID.name}, {_EVENT_CHANCE} FROM counted WHERE {LABEL.name} = 1 "
        f"ORDER BY {EXAMPLE_ID.name}"
    )


def implicit_labels(files: Sequence[Path], counted_types: Sequence[str], positive: Positive, negatives: int) -> str:
    """Return the query for the positive events in `files`, each followed by up to `negatives` drawn rows.

    The first events have fewer: nothing, or nothing new to the user, happened before them.
    """
    drawn_row = f"position, {USER_ID.name}, {ITEM_ID.name}, {EVENT_TIME.name}, {GROUP_ID.name}, {_CHANCE}"
    pick = f"md5_number_lower(concat('{DRAWING}', '|', {_KEY}, '|', draw)) % earlier"
    return f"""
WITH {_counted(files, counted_types, positive)}, positives AS (
    SELECT *, {_EVENT_CHANCE} FROM counted WHERE {LABEL.name} = 1
), met AS (
    SELECT {USER_ID.name}, {ITEM_ID.name}, min({EVENT_TIME.name}) AS first_time FROM logged GROUP BY ALL
), picked AS (
    SELECT position, draw, {USER_ID.name}, {EVENT_TIME.name}, {GROUP_ID.name}, {_CHANCE}, ({pick})::BIGINT AS place
    FROM positives, range({_DRAWS_PER_NEGATIVE * negatives}) draws(draw) WHERE earlier > 0
), named AS (
    SELECT picked.* EXCLUDE (place), counted.{ITEM_ID.name} FROM picked JOIN counted ON counted.position = picked.place
), fresh AS (
    SELECT * FROM named ANTI JOIN met ON met.{USER_ID.name} = named.{USER_ID.name}
        AND met.{ITEM_ID.name} = named.{ITEM_ID.name} AND met.first_time <= named.{EVENT_TIME.name}
), chosen AS (
    SELECT {drawn_row}, min(draw) AS draw FROM fresh GROUP BY {drawn_row}
    QUALIFY row_number() OVER (PARTITION BY position ORDER BY min(draw)) <= {negatives}
), labelled AS (
    SELECT position, -1 AS draw, {_EVENT}, 1::BIGINT AS {LABEL.name}, 0::BIGINT AS {DRAWN.name}, {GROUP_ID.name},
        {_CHANCE}
    FROM positives
    UNION ALL
    SELECT position, draw, {USER_ID.name}, {ITEM_ID.name}, {EVENT_TIME.name}, 0::FLOAT, 0::BIGINT, 1::BIGINT,
        {GROUP_ID.name}, {_CHANCE}
    FROM chosen
)
SELECT row_number() OVER (ORDER BY position, draw) - 1 AS {EXAMPLE_ID.name}, * EXCLUDE (position, draw)
FROM labelled ORDER BY {EXAMPLE_ID.name}
"""  # noqa: S608 - names are quoted


def sampled_train(labels: Path, train_end_us: int, samples_per_user: int, half_life_days: float) -> str:
    """Return the query for label rows with their weights, of which train rows of busy users are a sample.

    Args:
        labels: What one of the queries above gave, as a file.
        train_end_us: Rows from here on are valid or test: all of them are kept, with weight 1.
        samples_per_user: How many labelled events of a user train may have at most; what was drawn in an event's place
            comes and goes with it. Which of them is a matter of chance, by a hash of the event's own key: another event
            takes the place of one, and changes no other user's. 0 keeps all. (Covington et al., "Deep Neural Networks
            for YouTube Recommendations", 2016.)
        half_life_days: A train row this long before `train_end_us` counts half. 0 weighs all alike.
    """
    time = microseconds(EVENT_TIME.name)
    is_train = f"{time} < {train_end_us}"
    age = f"({train_end_us} - {time}) / {_DAY_US}"
    weight = f"CASE WHEN {is_train} THEN pow(0.5, {age} / {half_life_days!r}) ELSE 1 END" if half_life_days else "1"
    place = f"dense_rank() OVER (PARTITION BY {USER_ID.name}, {is_train} ORDER BY {_CHANCE})"
    kept = f"QUALIFY NOT ({is_train}) OR {place} <= {samples_per_user}" if samples_per_user else ""
    columns = f"* EXCLUDE ({_CHANCE}), ({weight})::FLOAT AS {WEIGHT.name}"
    rows = f"SELECT {columns} FROM {parquet([labels])} {kept}"  # noqa: S608 - quoted
    number = f"row_number() OVER (ORDER BY {EXAMPLE_ID.name}) - 1"
    return f"SELECT * REPLACE ({number} AS {EXAMPLE_ID.name}) FROM ({rows}) ORDER BY {EXAMPLE_ID.name}"  # noqa: S608 - as above


def as_of_the_moment(labels: Path) -> str:
    """Return the query for label rows that want the features as of their own time (strictly before it)."""
    return f"SELECT {_JOINED}, {_REQUEST}, {EVENT_TIME.name} AS event_timestamp FROM {parquet([labels])}"  # noqa: S608 - quoted


def as_of_the_last_refresh(labels: Path, refresh_hours: int, start_us: int) -> str:
    """Return the query for label rows from `start_us` on that want what the online store would have had.

    A store refreshed every `refresh_hours` (counted from midnight, 1970-01-01 UTC) holds, at a label's time, what was
    known strictly before the last refresh.
    """
    period, time = refresh_hours * _HOUR_US, microseconds(EVENT_TIME.name)
    refresh = f"make_timestamptz({time} - (({time} % {period}) + {period}) % {period})"
    rows = f"FROM {parquet([labels])} WHERE {time} >= {start_us}"
    return f"SELECT {_JOINED}, {_REQUEST}, {refresh} AS event_timestamp {rows}"


def _counted(files: Sequence[Path], counted_types: Sequence[str], positive: Positive) -> str:
    """Return common tables: `logged`, every event; `counted`, with place, how many are strictly earlier, label, group.

    A group is a session, as `user_session` has it: an event after a longer pause begins one.
    """
    counted, liked = (", ".join(map(literal, types)) for types in (counted_types, positive.event_types))
    order = ", ".join(identifier(name) for name in EVENTS.sort)
    kind, value, time = identifier(EVENT_TYPE.name), identifier(VALUE.name), microseconds(EVENT_TIME.name)
    return f"""logged AS NOT MATERIALIZED (
    SELECT * FROM {parquet(files)}
), placed AS (
    SELECT *, row_number() OVER (ORDER BY {order}) - 1 AS position,
        rank() OVER (ORDER BY {EVENT_TIME.name}) - 1 AS earlier,
        ({kind} IN ({liked}) AND {value} >= {positive.threshold!r}::FLOAT)::BIGINT AS {LABEL.name}
    FROM logged WHERE {kind} IN ({counted})
), begun AS (
    SELECT *, {time} - lag({time}) OVER of_user <= {SESSION_GAP_S * _SECOND_US} AS goes_on
    FROM placed WINDOW of_user AS (PARTITION BY {USER_ID.name} ORDER BY position)
), counted AS (
    SELECT * EXCLUDE (goes_on), max(CASE WHEN goes_on THEN NULL ELSE position END) OVER (
        PARTITION BY {USER_ID.name} ORDER BY position
    )::BIGINT AS {GROUP_ID.name} FROM begun
)"""  # noqa: S608 - names are quoted
