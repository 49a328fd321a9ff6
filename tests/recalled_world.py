"""Questions and what recall offered for them, made by the plainest Python, in folders as the contracts have them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.candidates import CANDIDATES
from feature_repo.contracts.channels import channels
from feature_repo.contracts.features import declared
from feature_repo.contracts.intervals import feast_project, format_cutoff
from feature_repo.contracts.manifests import (
    Candidates,
    OnlineSnapshot,
    Questions,
    catalogue_part,
    channel_part,
    vectors_part,
    views_part,
)
from feature_repo.contracts.places import MANIFEST, cutoff_name
from feature_repo.contracts.publishing import file_sha256
from feature_repo.contracts.questions import ANSWERS, ANSWERS_FILE, QUESTIONS, QUESTIONS_FILE, SNAPSHOT_FILE, Asked
from pipelines.io.arrow import arrow_schema

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from feature_repo.contracts.places import Namespace
    from feature_repo.contracts.schemas import Schema
    from pipelines.questions.origins import Origin

Row = dict[str, Any]
QUESTIONS_ID, CANDIDATES_ID = "asked", "offered"


@dataclass
class Round:
    """Questions at one origin, their answers, and what recall offered."""

    origin: Origin
    questions: list[Row] = field(default_factory=list)
    answers: list[Row] = field(default_factory=list)
    candidates: list[Row] = field(default_factory=list)


def rounds_of(events: Sequence[Row], origins: Sequence[Origin], schema: Schema, seed: int = 0) -> list[Round]:
    """Ask whoever likes something new after each origin; offer some of what the user has not met, by some channels."""
    dice = random.Random(seed)
    items = sorted({row["item_id"] for row in events})
    found = []
    for origin in origins:
        asked = _ask(events, origin, schema)
        for question in asked.questions:
            if question["asked"] != Asked.AT_ORIGIN:
                continue
            had = {
                row["item_id"]
                for row in events
                if row["user_id"] == question["user_id"] and row["event_time"] < origin.moment
            }
            fresh = [item for item in items if item not in had]
            for item in dice.sample(fresh, min(len(fresh), dice.randrange(2, 12))):
                asked.candidates += _told(dice, question, item, origin.moment, schema)
        found.append(asked)
    return found


def likes(row: Row, schema: Schema) -> bool:
    return row["event_type"] in schema.positive.event_types and row["value"] >= schema.positive.min_value


def _ask(events: Sequence[Row], origin: Origin, schema: Schema) -> Round:
    before = {(row["user_id"], row["item_id"]) for row in events if row["event_time"] < origin.moment}
    known = {item for _, item in before}
    after = sorted((row for row in events if row["event_time"] >= origin.moment), key=lambda row: row["event_time"])
    liked: dict[tuple[str, str], datetime] = {}
    for row in after:
        pair = row["user_id"], row["item_id"]
        if row["event_time"] < origin.end and likes(row, schema) and pair not in before:
            liked.setdefault(pair, row["event_time"])
    users = sorted({user for user, _ in liked})
    following = {user: next(row["event_time"] for row in after if row["user_id"] == user) for user in users}
    asked = [(user, Asked.AT_ORIGIN, origin.moment) for user in users]
    asked += [(user, Asked.BEFORE_NEXT, following[user]) for user in users]
    return Round(
        origin,
        [
            {"question_id": n, "user_id": user, "asked": kind.value, "asked_time": time, "history": 0}
            for n, (user, kind, time) in enumerate(asked)
        ],
        [
            {"user_id": user, "item_id": item, "liked_time": liked[user, item], "is_new": int(item not in known)}
            for user, item in sorted(liked)
        ],
    )


def _told(dice: random.Random, question: Row, item: str, moment: datetime, schema: Schema) -> list[Row]:
    """Return what one to four channels say of an item; one without a score has none, and now and then others do not."""
    known = channels(schema)
    return [
        {
            "question_id": question["question_id"],
            "item_id": item,
            "channel": name,
            "score": dice.randrange(-40, 40) / 8 if known[name].score and dice.random() < 0.9 else None,
            "rank": dice.randrange(1, 200),
            "fitted_at": moment - timedelta(days=dice.choice([0, 0, 1])),
        }
        for name in sorted(dice.sample(sorted(known), dice.randrange(1, 5)))
    ]


def write_recalled(place: Namespace, rounds: Sequence[Round], cutoff: datetime, schema: Schema) -> str:
    """Write the folders of questions and candidates, and return the candidates' id."""
    questions, recalled = place.questions / QUESTIONS_ID, place.recalled / CANDIDATES_ID
    recalled.mkdir(parents=True)
    origins, rows = [], {}
    for each in rounds:
        folder = questions / cutoff_name(each.origin.moment)
        folder.mkdir(parents=True)
        asked = pa.Table.from_pylist(each.questions, arrow_schema(QUESTIONS))
        pq.write_table(asked, folder / QUESTIONS_FILE)
        pq.write_table(pa.Table.from_pylist(each.answers, arrow_schema(ANSWERS)), folder / ANSWERS_FILE)
        _snapshot(place, each.origin.moment, schema).write(folder / SNAPSHOT_FILE)
        span = {"origin": format_cutoff(each.origin.moment), "end": format_cutoff(each.origin.end)}
        counted = {"users": len(each.questions) // 2, "asked": len(each.questions) // 2, "answers": len(each.answers)}
        origins.append({**span, "role": each.origin.role.value, "folder": folder.name, **counted})
        if each.questions:
            told = sorted(each.candidates, key=lambda row: tuple(row[name] for name in CANDIDATES.sort))
            table = pa.Table.from_pylist(told, arrow_schema(CANDIDATES))
            pq.write_table(table, recalled / f"{folder.name}.parquet", row_group_size=64)
            rows[f"{folder.name}.parquet"] = len(told)
    Questions(
        questions_id=QUESTIONS_ID,
        namespace=place.name,
        schema=schema.to_json(),
        cutoff=format_cutoff(cutoff),
        training_set_id="",
        days=2,
        origins=origins,
        note="",
        checksums={file.relative_to(questions).as_posix(): file_sha256(file) for file in questions.glob("*/*")},
        sources={},
    ).write(questions / MANIFEST)
    Candidates(
        candidates_id=CANDIDATES_ID,
        namespace=place.name,
        schema=schema.to_json(),
        questions_id=QUESTIONS_ID,
        ranked=200,
        quotas=dict.fromkeys(channels(schema), 10),
        rows=rows,
        checksums={name: file_sha256(recalled / name) for name in rows},
    ).write(recalled / MANIFEST)
    return CANDIDATES_ID


def _snapshot(place: Namespace, moment: datetime, schema: Schema) -> OnlineSnapshot:
    """Return what would be online at a moment, by its record alone."""
    cutoff, known = format_cutoff(moment), channels(schema)
    parts = [
        catalogue_part(cutoff, "questions/none.parquet", "0" * 64),
        views_part(cutoff, {group.name: group.view_name for group in declared(schema).groups}),
        *(
            channel_part(
                name, cutoff, "none", "0" * 64, definition=channel.definition, table=channel.table, half_life_days=0.0
            )
            for name, channel in known.items()
            if channel.table
        ),
        vectors_part("item2vec", cutoff, "none", "0" * 64, 32, definition=known["item2vec"].definition),
    ]
    return OnlineSnapshot(
        namespace=place.name,
        schema=schema.to_json(),
        cutoff=cutoff,
        feast_project=feast_project(place.name),
        users=1,
        items=1,
        parts={part.name: part for part in parts},
    )


def change_snapshot(place: Namespace, name: str, **data: Any) -> None:
    """Write data of a part anew, in the snapshot of some origin."""
    path = min(place.questions.glob(f"*/*/{SNAPSHOT_FILE}"))
    snapshot = OnlineSnapshot.read(path)
    part = snapshot.parts[name]
    changed = replace(part, data=part.data | data)
    replace(snapshot, parts=snapshot.parts | {name: changed}).write(path)


def change_manifest(place: Namespace, **changes: Any) -> None:
    """Write the candidates' record anew with other fields."""
    path = place.recalled / CANDIDATES_ID / MANIFEST
    replace(Candidates.read(path), **changes).write(path)


def change_questions(place: Namespace, **changes: Any) -> None:
    """Write the questions' record anew with other fields."""
    path = place.questions / QUESTIONS_ID / MANIFEST
    replace(Questions.read(path), **changes).write(path)
