"""Made-up questions, as the data plane writes them: origins of several roles, of the recommender's made-up world.

No log is behind them. A user likes the items that follow those that they rated, and has rated one more at each origin.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.channels import Table, channels
from feature_repo.contracts.embeddings import EMBEDDING_SIZE, ITEM2VEC
from feature_repo.contracts.intervals import feast_project, format_cutoff
from feature_repo.contracts.manifests import (
    OnlineSnapshot,
    Questions,
    catalogue_part,
    channel_part,
    vectors_part,
    views_part,
)
from feature_repo.contracts.places import MANIFEST, Namespace, cutoff_name
from feature_repo.contracts.publishing import file_sha256
from feature_repo.contracts.questions import (
    ANSWERS,
    ANSWERS_FILE,
    CATALOGUE_FILE,
    QUESTIONS,
    QUESTIONS_FILE,
    SIMPLE_LISTS,
    SIMPLE_LISTS_FILE,
    SNAPSHOT_FILE,
    USER_FIELDS,
    USER_FIELDS_FILE,
    Asked,
    Role,
    SimpleList,
)
from feature_repo.contracts.schemas import MOVIELENS
from feature_repo.feast_redis import encode_timestamp, encode_value, feature_field, timestamp_field
from pipelines.io.arrow import arrow_schema, conform
from tests.movielens import FEATURES, USER_ACTIVITY, USER_HISTORY
from tests.recommender_world import (
    ITEM_COUNT,
    NAMESPACE,
    USERS_KNOWN,
    catalogue_table,
    item_id,
    rated_items,
    snapshot_views,
    user_rows,
    vectors_table,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from feature_repo.contracts.datasets import Dataset
    from feature_repo.contracts.manifests import Part

UNKNOWN = "nobody"
"""Asked, and without a field in Redis."""
USERS = (*USERS_KNOWN, UNKNOWN)
DAYS = 30
ORIGINS = {
    datetime(1998, 1, 1, tzinfo=UTC): Role.TRAIN,
    datetime(1998, 1, 31, tzinfo=UTC): Role.TRAIN,
    datetime(1998, 3, 2, tzinfo=UTC): Role.VALIDATION,
    datetime(1998, 4, 1, tzinfo=UTC): Role.TEST,
}
QUESTIONS_ID = "asked"
LIKED_CHANNEL, TOLD_CHANNEL = "liked_30d", "ease"


@dataclass(frozen=True)
class QuestionsWorld:
    """A state folder with questions; `origins` says at which moments, and what for."""

    state: Path
    origins: Mapping[datetime, Role] = field(default_factory=lambda: ORIGINS)
    users: Sequence[str] = USERS
    items: int = ITEM_COUNT
    liked_from: int = 0
    """The number of the first item that anybody can like: from ITEM_COUNT on, one that the catalogue does not have."""

    @property
    def place(self) -> Namespace:
        return Namespace(self.state, NAMESPACE)

    @property
    def folder(self) -> Path:
        return self.place.questions / QUESTIONS_ID

    def origin_folder(self, moment: datetime) -> Path:
        return self.folder / cutoff_name(moment)

    def write(self) -> QuestionsWorld:
        """Write everything, and the manifest over it."""
        for number, moment in enumerate(self.origins):
            folder = self.origin_folder(moment)
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder / QUESTIONS_FILE, self._questions(number, moment), QUESTIONS)
            _write(folder / ANSWERS_FILE, self._answers(number, moment), ANSWERS)
            _write(folder / SIMPLE_LISTS_FILE, self._simple_lists(), SIMPLE_LISTS)
            _write(folder / USER_FIELDS_FILE, self._user_fields(number), USER_FIELDS)
            pq.write_table(catalogue_table(self.items), folder / CATALOGUE_FILE)
            self.write_snapshot(moment)
        self.sign()
        return self

    def write_snapshot(self, moment: datetime, **changes: Part) -> None:
        """Write what is known as of an origin; `changes` are parts by name, in place of the usual ones."""
        cutoff = format_cutoff(moment)
        catalogue = self.origin_folder(moment) / CATALOGUE_FILE
        vectors = self.place.embeddings / ITEM2VEC.name / f"{cutoff_name(moment)}.parquet"
        vectors.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(vectors_table(self.items), vectors)
        tables = {LIKED_CHANNEL: _liked_table, TOLD_CHANNEL: _told_table}
        parts = (
            catalogue_part(cutoff, self._below(catalogue), file_sha256(catalogue)),
            views_part(cutoff, snapshot_views()),
            vectors_part(
                ITEM2VEC.name,
                cutoff,
                self._below(vectors),
                file_sha256(vectors),
                EMBEDDING_SIZE,
                definition=channels(MOVIELENS)[ITEM2VEC.name].definition,
            ),
            *(self.channel(name, moment, rows(self.items)) for name, rows in tables.items() if name not in changes),
        )
        OnlineSnapshot(
            namespace=NAMESPACE,
            schema=MOVIELENS.to_json(),
            cutoff=cutoff,
            feast_project=feast_project(NAMESPACE),
            users=len(self.users),
            items=self.items,
            parts={part.name: part for part in parts} | changes,
        ).write(self.origin_folder(moment) / SNAPSHOT_FILE)

    def channel(self, name: str, moment: datetime, rows: pa.Table, **changes: Any) -> Part:
        """Write a channel's table as of a moment; return it as a part of a snapshot."""
        path = self.place.channels / name / f"{cutoff_name(moment)}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, path)
        declared = channels(MOVIELENS)[name]
        assert declared.table is not None
        part = channel_part(
            name,
            format_cutoff(moment),
            self._below(path),
            file_sha256(path),
            definition=declared.definition,
            table=declared.table.value,
            half_life_days=30.0 if declared.table is Table.NEIGHBOURS else 0.0,
        )
        return replace(part, **changes)

    def sign(self) -> Questions:
        """Write the manifest of what is there now."""
        origins = [
            {
                "origin": format_cutoff(moment),
                "end": format_cutoff(moment + timedelta(days=DAYS)),
                "role": role.value,
                "folder": cutoff_name(moment),
                "users": len(self.users),
                "asked": len(self.users),
            }
            for moment, role in self.origins.items()
        ]
        files = sorted(self.folder.glob("*/*"))
        record = Questions(
            questions_id=QUESTIONS_ID,
            namespace=NAMESPACE,
            schema=MOVIELENS.to_json(),
            cutoff="1998-05-01T00:00:00Z",
            training_set_id="toy",
            days=DAYS,
            origins=origins,
            note="",
            checksums={file.relative_to(self.folder).as_posix(): file_sha256(file) for file in files},
            sources={},
        )
        record.write(self.folder / MANIFEST)
        return record

    def seen(self, user: str, number: int) -> list[str]:
        """What a user has rated before the origin of a number: one item more at each."""
        return rated_items(user)[: 12 + number] if user != UNKNOWN else []

    def liked(self, user: str, number: int) -> list[str]:
        """What a user likes after the origin."""
        after = rated_items(user)[12 + number :][:3] if user != UNKNOWN else [item_id(1)]
        return [item_id(self.liked_from + int(item)) for item in after]

    def _below(self, path: Path) -> str:
        return path.relative_to(self.place.root).as_posix()

    def _questions(self, number: int, moment: datetime) -> list[dict[str, Any]]:
        # Ids fall while users' names rise: nothing may take one order for the other.
        count = len(self.users)
        return [
            {
                "question_id": (2 - half) * count - 1 - place,
                "user_id": user,
                "asked": asked.value,
                "asked_time": moment + timedelta(days=half * (1 + place % 20)),
                "history": len(self.seen(user, number)),
            }
            for half, asked in enumerate(Asked)
            for place, user in enumerate(sorted(self.users))
        ]

    def _answers(self, number: int, moment: datetime) -> list[dict[str, Any]]:
        return [
            {"user_id": user, "item_id": item, "liked_time": moment + timedelta(days=3), "is_new": 0}
            for user in self.users
            for item in self.liked(user, number)
        ]

    def _simple_lists(self) -> list[dict[str, Any]]:
        items = [item_id(place) for place in range(100)]
        return [
            {"method": method.value, "variant": "", "user_id": user, "items": items}
            for method in SimpleList
            for user in self.users
        ]

    def _user_fields(self, number: int) -> list[dict[str, Any]]:
        questions = self._questions(number, datetime(1998, 1, 1, tzinfo=UTC))
        return [
            {"question_id": each["question_id"], "field": name, "stored": stored}
            for each in questions
            if each["user_id"] != UNKNOWN
            for name, stored in self._stored(each["user_id"], number).items()
        ]

    def _stored(self, user: str, number: int) -> dict[bytes, bytes]:
        """What Redis would hold of a user: everything liked, the last first."""
        seen, fields = self.seen(user, number), {}
        at = 893_221_200 - 86_400 * 120
        own: dict[str, dict[str, Any]] = {
            USER_ACTIVITY.name: {"user_last_items": seen[:10], "user_last_values": [5.0] * 10},
            USER_HISTORY.name: {"user_seen_items": sorted(seen)},
        }
        rows = user_rows(user)
        for group in FEATURES.users:
            values = rows[group.name] | own.get(group.name, {})
            if any(column.name == "user_liked_items" for column in group.features):
                values |= {"user_liked_items": seen, "user_liked_times": [at - place for place in range(len(seen))]}
            view = group.view_name
            fields[timestamp_field(view)] = encode_timestamp(at * 1_000_000)
            for column in group.features:
                value = values.get(column.name)
                fields[feature_field(view, column.name)] = b"" if value is None else encode_value(column, value)
        return fields


def _liked_table(items: int) -> pa.Table:
    """Every third item, in an order that popularity does not have."""
    chosen = range(0, items, 3)
    return pa.table(
        {
            "item_id": [item_id(number) for number in chosen],
            "score": pa.array([(number * 7 % 101) / 101 for number in chosen], pa.float32()),
        }
    )


def _told_table(items: int) -> pa.Table:
    """An item tells of the two that come after it, in its own taste."""
    following = [[(number + step) % items for step in (4, 8)] for number in range(items)]
    return pa.table(
        {
            "item_id": [item_id(number) for number in range(items)],
            "neighbours": pa.array(following, pa.list_(pa.int64())),
            "weights": pa.array([[0.75, 0.25]] * items, pa.list_(pa.float32())),
        }
    )


def _write(path: Path, rows: list[dict[str, Any]], dataset: Dataset) -> None:
    pq.write_table(conform(pa.Table.from_pylist(rows, arrow_schema(dataset)), dataset), path)
