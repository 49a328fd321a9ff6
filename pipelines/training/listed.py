"""Candidates → label rows, in canonical order: origin by origin, question by question, item by item.

A row is an item that the recommender would have ranked for a question. Its label says whether the user liked it in the
days after. Beside it stands what each channel of recall said of it, one column for each figure.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.contracts.candidates import CHANNEL, CHANNEL_RANK, CHANNEL_SCORE, FITTED_AT
from feature_repo.contracts.channels import Figure, channels, fit_date
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
from feature_repo.contracts.intervals import format_cutoff
from feature_repo.contracts.questions import ASKED, ASKED_TIME, QUESTION_ID, Asked, Role
from pipelines.feast_store.retrieval_jobs import microseconds_since_1970
from pipelines.feast_store.tables import microseconds
from pipelines.io.duck import create_view_of_files, duckdb_session
from pipelines.io.sql_text import identifier, literal, parquet
from pipelines.training.columns import pair_columns
from pipelines.training.errors import CandidatesError, TooFewListsError
from pipelines.training.recalled import SPLITS
from pipelines.training.splits import Splits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import duckdb
    import pyarrow as pa

    from feature_repo.contracts.columns import Column
    from feature_repo.contracts.schemas import Schema
    from pipelines.io.lake import Snapshot
    from pipelines.settings import Settings
    from pipelines.training.recalled import Recalled, RecalledOrigin

CHOOSING = "list-rows-3"
"""Seed of which rows are left out of train. Raised by whoever changes how: it is in the set's id."""
_MEMORY = "2GB"
_BATCH_ROWS = 1 << 16
_QUESTIONS_AT_ONCE = 1000
"""So many questions' candidates are in memory together: some 200,000 rows, of three columns for each channel."""
_LEAST_OF_A_KIND = 20
"""So many rows of a kind (liked, taken and not liked, not taken) a question keeps, however many questions there are."""
_CHANCE = "chance"
_TOLD = "told"
"""How many channels' rows became one: as many as found the item, unless one came twice."""


@dataclass(frozen=True, slots=True)
class ListedRows:
    """The label rows of what recall offered."""

    settings: Settings
    schema: Schema
    events: Snapshot
    recalled: Recalled

    @property
    def sources(self) -> dict[str, str]:
        """What the rows are made from, beside events and features."""
        return {"candidates": self.recalled.candidates_id}

    @property
    def label_min_value(self) -> float:
        """The least value of a like: answers follow the schema, whatever KESTREL_LABEL_MIN_VALUE says."""
        return self.schema.positive.min_value

    @property
    def columns(self) -> tuple[Column, ...]:
        """What each channel says of the item, and since when its fit knows no more."""
        return pair_columns(self.schema)

    def write(self, path: Path) -> Splits:
        """Write the label rows; origins' roles split them.

        Raises:
            CandidatesError: The candidates know the answers, or do not belong to questions, channels or events.
            TooFewListsError: A role has no origin, or too few rows to learn from or to be measured by.
        """
        missing = [role.value for role in SPLITS if not self.recalled.of(role)]
        if missing:
            msg = f"{self._subject}: expected origins of each role with questions, received none of {missing}; {_MORE}"
            raise TooFewListsError(msg)
        rows, positives = self._write(path)
        self._check_classes(rows, positives)
        train_end, valid_end = (
            microseconds_since_1970(self.recalled.of(role)[0].moment) for role in (Role.VALIDATION, Role.TEST)
        )
        return Splits(train_end, valid_end, *(rows[role] for role in SPLITS))

    def prior_mean(self, train: Path, splits: Splits) -> float:  # noqa: ARG002 - as of other rows
        """Return the mean value of the counted events before the end of train: most of its rows have no event."""
        counted = _counted(self.schema)
        with duckdb_session(_MEMORY) as connection:
            # In the order of the values, so that the last bit of the sum depends on nothing else.
            values = connection.execute(
                f"SELECT {VALUE.name}::DOUBLE AS {VALUE.name} FROM {parquet(self.events.files)} "  # noqa: S608 - quoted
                f"WHERE {counted} AND {microseconds(EVENT_TIME.name)} < {splits.train_end_us} ORDER BY {VALUE.name}"
            ).fetchnumpy()[VALUE.name]
        return float(values.mean())

    @property
    def _subject(self) -> str:
        return f"training set of candidates {self.recalled.candidates_id}"

    def _write(self, path: Path) -> tuple[Counter[Role], Counter[Role]]:
        """Write the rows of every origin; return how many each role has, and how many of them are positive."""
        rows: Counter[Role] = Counter()
        positives: Counter[Role] = Counter()
        writer: pq.ParquetWriter | None = None
        try:
            for origin, batch in self._batches():
                writer = writer or pq.ParquetWriter(path, batch.schema)
                writer.write_batch(batch)
                rows[origin.role] += batch.num_rows
                positives[origin.role] += pc.sum(batch[LABEL.name]).as_py() or 0
        finally:
            if writer:
                writer.close()
        return rows, positives

    def _batches(self) -> Iterator[tuple[RecalledOrigin, pa.RecordBatch]]:
        groups = rows = 0
        most = self._most_of_a_kind()
        with duckdb_session(_MEMORY) as connection:
            for origin in self.recalled.origins:
                _open(connection, self.schema, self.events, origin, groups)
                _check(connection, self.schema, origin)
                limit = most if origin.role is Role.TRAIN else 0
                for first, last in _question_ranges(connection):
                    connection.execute(pivoted(self.schema, origin.candidates, first, last))
                    _check_pivoted(connection, self.schema, origin)
                    for batch in connection.sql(label_rows(self.schema, rows, limit)).to_arrow_reader(_BATCH_ROWS):
                        _check_events(batch, origin)
                        rows += batch.num_rows
                        yield origin, batch
                groups += _count(connection)

    def _most_of_a_kind(self) -> int:
        """Return how many rows of a kind each question of train keeps; 0 for all."""
        if not self.settings.list_rows:
            return 0
        questions = sum(origin.users for origin in self.recalled.of(Role.TRAIN))
        return max(_LEAST_OF_A_KIND, self.settings.list_rows // questions)

    def _check_classes(self, rows: Counter[Role], positives: Counter[Role]) -> None:
        for role, split in SPLITS.items():
            needs_both = role is not Role.TEST
            if 0 < positives[role] < rows[role] or (rows[role] and not needs_both):
                continue
            origins = [format_cutoff(each.moment) for each in self.recalled.of(role)]
            msg = (
                f"{self._subject}: expected {'rows of both classes' if needs_both else 'rows'} in {split}, received "
                f"{rows[role]} rows, {positives[role]} of them positive, of the {role} origins {origins}; {_MORE}"
            )
            raise TooFewListsError(msg)


_MORE = "bring more events, or train only specs whose rows are of the kind ranking"


def _counted(schema: Schema) -> str:
    return f"{identifier(EVENT_TYPE.name)} IN ({', '.join(map(literal, schema.counted_types))})"


def _open(
    connection: duckdb.DuckDBPyConnection, schema: Schema, events: Snapshot, origin: RecalledOrigin, groups: int
) -> None:
    """Make the tables `question`, `answer` and `happened` of one origin; `groups` came before it.

    Questions are those at the origin. `happened` has the first counted event of a question's user with an item, until
    the answers end.
    """
    create_view_of_files(connection, "event", EVENTS, events.within(origin.moment, origin.end).files)
    end = microseconds_since_1970(origin.end)
    connection.execute(
        f"""
CREATE OR REPLACE TEMP TABLE question AS
    SELECT *, {groups} + row_number() OVER (ORDER BY {QUESTION_ID.name}) - 1 AS {GROUP_ID.name}
    FROM {parquet([origin.questions])} WHERE {ASKED.name} = {literal(Asked.AT_ORIGIN)};
CREATE OR REPLACE TEMP TABLE answer AS SELECT * FROM {parquet([origin.answers])};
CREATE OR REPLACE TEMP TABLE happened AS
    SELECT {GROUP_ID.name}, {ITEM_ID.name},
        first({identifier(VALUE.name)} ORDER BY {EVENT_TIME.name}, {EVENT_TYPE.name}) AS {VALUE.name}
    FROM question JOIN event USING ({USER_ID.name})
    WHERE {_counted(schema)} AND {EVENT_TIME.name} >= {ASKED_TIME.name} AND {microseconds(EVENT_TIME.name)} < {end}
    GROUP BY ALL
"""  # noqa: S608 - names are quoted
    )


def _count(connection: duckdb.DuckDBPyConnection) -> int:
    ((count,),) = connection.execute("SELECT count(*) FROM question").fetchall()
    return int(count)


def _question_ranges(connection: duckdb.DuckDBPyConnection) -> Iterator[tuple[int, int]]:
    """Yield the first and last id of the questions whose rows are made together."""
    ids = connection.execute(f"SELECT {QUESTION_ID.name} FROM question ORDER BY ALL").fetchnumpy()[QUESTION_ID.name]  # noqa: S608 - a contract's column
    for start in range(0, len(ids), _QUESTIONS_AT_ONCE):
        some = ids[start : start + _QUESTIONS_AT_ONCE]
        yield int(some[0]), int(some[-1])


def _check(connection: duckdb.DuckDBPyConnection, schema: Schema, origin: RecalledOrigin) -> None:
    """Refuse questions outside their origin's days, and candidates that no question, channel or moment explains."""
    known = ", ".join(literal(name) for name in channels(schema))
    rank, score, date = CHANNEL_RANK.name, CHANNEL_SCORE.name, FITTED_AT.name
    faults = {
        "rows of its questions": f"{ASKED_TIME.name} IS NULL",
        f"channels among [{known}]": f"{CHANNEL.name} NOT IN ({known})",
        "ranks from 1": f"coalesce({rank}, 0) < 1",
        "finite scores, or null": f"NOT isfinite({score})",
        "fits at or before the question, for later ones know the answer": (
            f"coalesce({date} > {ASKED_TIME.name}, {ASKED_TIME.name} IS NOT NULL)"
        ),
    }
    counts = ", ".join(f"count(*) FILTER ({fault})" for fault in faults.values())
    (found,) = connection.execute(
        f"SELECT {counts} FROM {parquet([origin.candidates])} LEFT JOIN question USING ({QUESTION_ID.name})"  # noqa: S608 - quoted
    ).fetchall()
    for expected, count in zip(faults, found, strict=True):
        if count:
            raise _refused(origin.candidates, expected, f"{count} others", "`python -m serving.lists candidates`")
    start, end = map(microseconds_since_1970, (origin.moment, origin.end))
    time = microseconds(ASKED_TIME.name)
    ((early_or_late,),) = connection.execute(
        f"SELECT count(*) FROM question WHERE {time} NOT BETWEEN {start} AND {end - 1}"  # noqa: S608 - numbers and columns
    ).fetchall()
    if early_or_late:
        expected = f"questions from {format_cutoff(origin.moment)} to before {format_cutoff(origin.end)}"
        raise _refused(origin.questions, expected, f"{early_or_late} others", "`python -m pipelines questions`")


def _refused(file: Path, expected: str, received: str, job: str) -> CandidatesError:
    msg = f"{file}: expected {expected}, received {received}; remove {file.parent}, and run {job} again"
    return CandidatesError(msg)


def pivoted(schema: Schema, candidates: Path, first: int, last: int) -> str:
    """Return the statement that makes `offered`: a row for each question and item, with all that channels said of it.

    Args:
        schema: The data set's; it says which channels there are.
        candidates: Rows of CANDIDATES.
        first: Id of the first question of `question` that is taken.
        last: Id of the last one.
    """
    figures = {Figure.SCORE: CHANNEL_SCORE.name, Figure.RANK: CHANNEL_RANK.name}
    selected = []
    for channel in channels(schema).values():
        told = {column.name: figures[pair.figure] for pair, column in channel.features}
        told[fit_date(channel.name).name] = FITTED_AT.name
        selected += [
            f"max({source}) FILTER ({CHANNEL.name} = {literal(channel.name)}) AS {identifier(name)}"
            for name, source in told.items()
        ]
    return f"""
CREATE OR REPLACE TEMP TABLE offered AS
    SELECT {GROUP_ID.name}, {ITEM_ID.name}, count(*) AS {_TOLD}, {", ".join(selected)}
    FROM {parquet([candidates])} JOIN question USING ({QUESTION_ID.name})
    WHERE {QUESTION_ID.name} BETWEEN {first} AND {last}
    GROUP BY {GROUP_ID.name}, {ITEM_ID.name}
"""  # noqa: S608 - names are quoted


def _check_pivoted(connection: duckdb.DuckDBPyConnection, schema: Schema, origin: RecalledOrigin) -> None:
    found = " + ".join(f"({fit_date(name).name} IS NOT NULL)::BIGINT" for name in channels(schema))
    repeated = connection.execute(
        f"SELECT {GROUP_ID.name}, {ITEM_ID.name} FROM offered WHERE {_TOLD} <> {found} ORDER BY ALL LIMIT 1"  # noqa: S608 - quoted
    ).fetchall()
    if repeated:
        received = f"several for the item {repeated[0][1]!r} of question {repeated[0][0]}"
        expected = "one row for each question, item and channel"
        raise _refused(origin.candidates, expected, received, "`python -m serving.lists candidates`")


def label_rows(schema: Schema, first_example: int, most: int) -> str:
    """Return the query for the label rows of `offered`, in the order of questions and items.

    Args:
        schema: The data set's.
        first_example: Number of the first row.
        most: How many rows of a kind (liked, taken and not liked, not taken) a question keeps at most, by a hash of the
            row's own key; they weigh as much as all did. 0 keeps all.
    """
    own = f"{literal(CHOOSING)}, {USER_ID.name}, {ASKED.name}, {microseconds(EVENT_TIME.name)}, {ITEM_ID.name}"
    alike = f"PARTITION BY {GROUP_ID.name}, {DRAWN.name}, {LABEL.name}"
    place = f"row_number() OVER ({alike} ORDER BY {_CHANCE}, {ITEM_ID.name})"
    # Those that are kept stand for those that are not: the share of each kind stays what it was.
    weight = f"greatest(count(*) OVER ({alike}) / {most}, 1)" if most else "1"
    kept = f"QUALIFY {place} <= {most}" if most else ""
    pairs = ", ".join(identifier(column.name) for column in pair_columns(schema))
    return f"""
WITH labelled AS (
    SELECT question.{USER_ID.name}, offered.{ITEM_ID.name}, {ASKED_TIME.name} AS {EVENT_TIME.name},
        coalesce(happened.{VALUE.name}, 0)::FLOAT AS {VALUE.name},
        (answer.{ITEM_ID.name} IS NOT NULL)::BIGINT AS {LABEL.name},
        (happened.{ITEM_ID.name} IS NULL)::BIGINT AS {DRAWN.name},
        {GROUP_ID.name}, 1::FLOAT AS {WEIGHT.name}, {pairs}, {ASKED.name}
    FROM offered JOIN question USING ({GROUP_ID.name})
    LEFT JOIN happened USING ({GROUP_ID.name}, {ITEM_ID.name})
    LEFT JOIN answer ON answer.{USER_ID.name} = question.{USER_ID.name}
        AND answer.{ITEM_ID.name} = offered.{ITEM_ID.name} AND answer.liked_time >= question.{ASKED_TIME.name}
), kept AS (
    SELECT * EXCLUDE ({_CHANCE}) REPLACE (({weight})::FLOAT AS {WEIGHT.name})
    FROM (SELECT *, md5_number_lower(concat_ws('|', {own})) AS {_CHANCE} FROM labelled)
    {kept}
)
SELECT {first_example} + row_number() OVER (ORDER BY {GROUP_ID.name}, {ITEM_ID.name}) - 1 AS {EXAMPLE_ID.name},
    * EXCLUDE ({ASKED.name})
FROM {"kept" if most else "labelled"} ORDER BY {EXAMPLE_ID.name}
"""  # noqa: S608 - names are quoted


def _check_events(batch: pa.RecordBatch, origin: RecalledOrigin) -> None:
    """Refuse an answer whose event the lake does not have: questions and rows would be of different logs."""
    drawn = batch.filter(pc.and_(pc.equal(batch[LABEL.name], 1), pc.equal(batch[DRAWN.name], 1)))
    if drawn.num_rows:
        user, item = drawn[USER_ID.name][0].as_py(), drawn[ITEM_ID.name][0].as_py()
        expected = "answers with an event in the lake"
        received = f"one of the user {user!r} with {item!r} that has none"
        raise _refused(origin.answers, expected, received, "`python -m pipelines questions`")
