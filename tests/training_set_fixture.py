"""A small synthetic training set, exactly as `contracts.manifests.TrainingSet` has it, for tests of the model plane.

What can be learned from it: users and items have a hidden level each; their means so far tell of it, noisily.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.contracts.channels import Figure, fit_date
from feature_repo.contracts.columns import Column, Curve, Dtype, Encoding
from feature_repo.contracts.datasets import USER_ID
from feature_repo.contracts.features import SEQUENCE_ITEMS, SESSION_GAP_S
from feature_repo.contracts.manifests import (
    TRAINING_FILES,
    TRANSFORMS_FILE,
    TRANSFORMS_VERSION,
    TrainingKind,
    TrainingSet,
)
from feature_repo.contracts.places import MANIFEST
from feature_repo.contracts.publishing import file_sha256, write_json
from feature_repo.contracts.schemas import MOVIELENS
from feature_repo.contracts.signatures import Scope, pair_inputs, ranking
from tests.blank_values import blank
from tests.movielens import FEATURES, LIKED_VALUE, RANKING_FEATURES, USER_SEQUENCE

if TYPE_CHECKING:
    from feature_repo.contracts.features import FeatureService
    from feature_repo.contracts.places import Namespace
    from feature_repo.contracts.signatures import Signature

USERS, ITEMS = 120, 60
OFFERED = 30
"""Candidates of a question, in a training set of kind LISTS."""
GENRES = ("Action", "Comedy", "Drama", "Film-Noir", "Sci-Fi")
OCCUPATIONS = ("artist", "engineer", "writer")
_ARROW = {Dtype.STRING: pa.string(), Dtype.INT64: pa.int64(), Dtype.FLOAT32: pa.float32()}
_START_US = 880_000_000_000_000
_TRAIN, _VALID = 0.7, 0.15


def write_training_set(
    namespace: Namespace,
    training_set_id: str = "toy",
    *,
    rows: int = 3000,
    users: int = USERS,
    age_effect: float = 0.0,
    seed: int = 7,
    shuffle_labels: bool = False,
    pairs: tuple[str, ...] = (),
    kind: TrainingKind = TrainingKind.RANKING,
    service: FeatureService | None = None,
) -> TrainingSet:
    """Write a training set and return its manifest. Test rows hold items that no train row has.

    Without an `age_effect` the means know all there is to know; with one, a linear model knows more. `pairs` are names
    of pair features, of fits of an hour before each row; where a channel did not find the item, there is no fit.

    Of the kind LISTS it has questions of OFFERED candidates each, of which two are liked, the windows, and every pair
    feature, which tell of liking beyond what the means do. `service` is another than the kind's: of one with
    `user_sequence`, users' histories have 0, 1 or 50 events, or any number between.
    """
    random = np.random.default_rng(seed)
    lists = kind is TrainingKind.LISTS
    service = service or (FEATURES.ranking_windows if lists else RANKING_FEATURES)
    table = _table(random, rows, users, age_effect, service, shuffle_labels=shuffle_labels)
    signature = ranking(MOVIELENS, (service.name, *(pair_inputs(MOVIELENS) if lists else pairs)))
    if lists:
        table = _asked(table, random)
    table = _with_pairs(table, signature, np.random.default_rng(seed + 1), noise=0.5 if lists else 0.1)
    whole = OFFERED if lists else 1
    train_end, valid_end = (int(rows * share) // whole * whole for share in (_TRAIN, _TRAIN + _VALID))
    splits = {
        "train": table.slice(0, train_end),
        "valid": table.slice(train_end, valid_end - train_end),
        "test": table.slice(valid_end),
        "test_as_of_refresh": _stale(table.slice(valid_end), service, random),
    }
    directory = namespace.training_sets / training_set_id
    directory.mkdir(parents=True)
    for name, split in splits.items():
        pq.write_table(split, directory / f"{name}.parquet")
    write_json(directory / TRANSFORMS_FILE, _transforms(splits["train"], service, signature))
    times = table["event_time"].to_pylist()
    record = TrainingSet(
        kind=kind,
        training_set_id=training_set_id,
        namespace=namespace.name,
        schema=MOVIELENS.to_json(),
        cutoff="1998-04-23T00:00:00Z",
        train_end=times[train_end].isoformat(),
        valid_end=times[valid_end].isoformat(),
        label_min_value=LIKED_VALUE,
        prior_mean=float(np.mean(splits["train"]["value"].to_numpy())),
        refresh_hours=24,
        feature_service=service.name,
        feature_service_hash=service.hash,
        views=service.views,
        feature_hashes=service.feature_hashes | {name: pair.definition for name, pair in signature.pairs.items()},
        rows={name: len(split) for name, split in splits.items()},
        checksums={name: file_sha256(directory / name) for name in (*TRAINING_FILES, TRANSFORMS_FILE)},
        sources={"events": "0" * 64},
        item_embeddings="embeddings/item2vec/none.parquet",
        item_embeddings_sha256="0" * 64,
        candidates_id="recalled" if lists else "",
    )
    record.write(directory / MANIFEST)
    return record


def rewrite_manifest(namespace: Namespace, record: TrainingSet, **changes: Any) -> None:
    """Write the manifest anew with some fields changed."""
    replace(record, **changes).write(namespace.training_sets / record.training_set_id / MANIFEST)


def _table(
    random: np.random.Generator,
    rows: int,
    num_users: int,
    age_effect: float,
    service: FeatureService,
    *,
    shuffle_labels: bool,
) -> pa.Table:
    users = random.integers(0, num_users, rows)
    items = random.integers(0, ITEMS, rows)
    late = np.arange(rows) > rows * 0.9
    items = np.where(late & (random.random(rows) < 0.1), ITEMS + random.integers(0, 5, rows), items)
    user_level, item_level = random.normal(0, 0.7, num_users), random.normal(0, 0.7, ITEMS + 5)
    liking = user_level[users] + item_level[items] + random.normal(0, 0.6, rows)
    ages = np.random.default_rng(rows).integers(18, 70, rows)
    liking += age_effect * (ages - 44) / 15
    values = np.clip(np.round(3.5 + liking), 1, 5).astype(np.float32)
    if shuffle_labels:
        values = random.permutation(values)
    user_count, item_count = random.integers(0, 40, rows), random.integers(0, 200, rows)
    means = {
        "user": np.clip(3.5 + user_level[users] + random.normal(0, 0.1, rows), 1, 5),
        "item": np.clip(3.5 + item_level[items] + random.normal(0, 0.1, rows), 1, 5),
    }
    columns: dict[str, pa.Array] = {
        "example_id": pa.array([f"{row:06d}" for row in range(rows)]),
        "user_id": pa.array([f"u{user}" for user in users]),
        "item_id": pa.array([f"i{item}" for item in items]),
        "event_time": pa.array(_START_US + np.arange(rows) * 60_000_000, pa.int64()).cast(pa.timestamp("us", "UTC")),
        "request_time": pa.array(_START_US // 1_000_000 + np.arange(rows) * 60, pa.int64()),
        "value": pa.array(values),
        "label": pa.array((values >= LIKED_VALUE).astype(np.int64)),
        "is_drawn": pa.array(np.zeros(rows, np.int64)),
        "group_id": pa.array((users + num_users * (np.arange(rows) // 500)).astype(np.int64)),
        "sample_weight": pa.array(np.ones(rows, np.float32)),
    }
    drawn: dict[str, Any] = {
        "user_last_items": [[f"i{i}" for i in random.integers(0, ITEMS, min(n, 10))] for n in user_count],
        "user_last_values": [list(random.integers(1, 6, min(n, 10)).astype(float)) for n in user_count],
        "user_event_count": [int(n) if n else None for n in user_count],
        "user_value_mean": [m if n else None for n, m in zip(user_count, means["user"], strict=True)],
        "user_value_std": [s if n else None for n, s in zip(user_count, random.random(rows), strict=True)],
        "user_release_year_mean": random.integers(1950, 1998, rows).astype(float),
        "user_release_year_std": random.random(rows) * 10,
        "user_top_genres": [list(random.permutation(GENRES)[: n % 6]) if n else None for n in user_count],
        "user_age": random.integers(18, 70, rows).astype(float),
        "user_gender": random.choice(["F", "M"], rows),
        "user_occupation": random.choice(OCCUPATIONS, rows),
        "item_event_count": item_count,
        "item_value_mean": [m if n else None for n, m in zip(item_count, means["item"], strict=True)],
        "item_value_std": random.random(rows),
        "item_release_year": [None if item % 13 == 0 else 1950.0 + item for item in items],
        "item_genres": [list(GENRES[item % 4 : item % 4 + 1 + item % 2]) for item in items],
    }
    if age_effect:
        drawn["user_age"] = ages.astype(float)
    drawn |= _sequences(np.random.default_rng(seed=rows), rows)
    drawn = {c.name: _others(c, rows, random) for c in service.columns if c.name not in drawn} | drawn
    return pa.table(columns | {c.name: _array(drawn[c.name], c) for c in service.columns})


def _sequences(random: np.random.Generator, rows: int) -> dict[str, Any]:
    """Return users' last events before each row, the latest first: hours or days apart, some within one session."""
    lengths = random.choice([0, 1, SEQUENCE_ITEMS, 7, 23], rows)
    drawn: dict[str, list[Any]] = {column.name: [] for column in USER_SEQUENCE.features}
    for row, length in enumerate(lengths):
        pauses = np.where(random.random(length) < 0.7, 300, 90_000)
        sessions = 1 + random.integers(0, 9) + np.cumsum(pauses[::-1] > SESSION_GAP_S)[::-1]
        times = _START_US // 1_000_000 + row * 60 - np.cumsum(pauses)
        for name, values in {
            "user_sequence_items": [f"i{item}" for item in random.integers(0, ITEMS, length)],
            "user_sequence_times": times.tolist(),
            "user_sequence_types": ["rating"] * length,
            "user_sequence_values": random.integers(1, 6, length).astype(float).tolist(),
            "user_sequence_sessions": sessions.tolist(),
        }.items():
            drawn[name].append(values)
    return drawn


def _asked(table: pa.Table, random: np.random.Generator) -> pa.Table:
    """Return the rows as answers to questions: a user, a moment, and candidates, of which the user meets few."""
    question = np.arange(len(table)) // OFFERED
    first = pa.array(question * OFFERED)
    of_question = [name for name in table.column_names if name.startswith("user_")] + ["event_time", "request_time"]
    # What the user thinks of an item that is like another of the catalogue, with the user's own taste left out.
    liking = table["item_value_mean"].fill_null(3.5).to_numpy() + random.normal(0, 0.5, len(table))
    places = np.argsort(np.argsort(-liking.reshape(-1, OFFERED), axis=1), axis=1).ravel()
    values = np.select([places < 2, places == OFFERED - 1], [5.0, 1.0], 0.0)
    columns = {name: table[name].take(first) for name in of_question} | {
        "value": pa.array(values, pa.float32()),
        "label": pa.array((values >= LIKED_VALUE).astype(np.int64)),
        "is_drawn": pa.array((values == 0).astype(np.int64)),
        "group_id": pa.array(question),
    }
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, values)
    return table


def _with_pairs(table: pa.Table, signature: Signature, random: np.random.Generator, noise: float) -> pa.Table:
    """Add pair features that tell of the value, of two items in three."""
    earlier = pc.subtract(table["event_time"], pa.scalar(3_600_000_000, pa.duration("us")))
    found = {pair.channel: random.random(len(table)) < 2 / 3 for pair in signature.pairs.values()}
    for channel, rows in found.items():
        dates = pc.if_else(pa.array(rows), earlier.combine_chunks(), pa.scalar(None, earlier.type))
        table = table.append_column(fit_date(channel).name, dates)
    for column in signature.scoped(Scope.PAIR):
        pair = signature.pairs[column.name]
        score = table["value"].to_numpy() / 5 + random.normal(0, noise, len(table))
        values = np.rint(np.maximum(100 * (3 - score), 1)) if pair.figure is Figure.RANK else score
        figures = pa.array(values, mask=~found[pair.channel]).cast(_ARROW[column.dtype])
        table = table.append_column(column.name, figures)
    return table


def _others(column: Column, rows: int, random: np.random.Generator) -> list[Any]:
    """Return values of a feature that is not drawn above: noise for a number, "no value" for a text or a list."""
    if column.length or column.dtype is Dtype.STRING:
        return [blank(column)] * rows
    return list(random.integers(0, 9, rows).astype(np.int64 if column.dtype is Dtype.INT64 else np.float32))


def _array(values: Any, column: Column) -> pa.Array:
    kind = _ARROW[column.dtype]
    if not column.length:
        return pa.array([None if v is None else v for v in values], kind)
    padded = [None if v is None else [*v, *[column.missing] * (column.length - len(v))] for v in values]
    return pa.array(padded, pa.list_(kind))


def _stale(test: pa.Table, service: FeatureService, random: np.random.Generator) -> pa.Table:
    """Return the test rows as the online store would have had them: some users were not there yet."""
    unknown = pa.array(random.random(len(test)) < 0.3)
    for column in service.groups[0].features:
        position = test.schema.get_field_index(column.name)
        blank = pa.nulls(len(test), test.schema.field(column.name).type)
        kept = test[column.name].combine_chunks()
        indices = pa.array(np.where(unknown.to_numpy(zero_copy_only=False), len(test), np.arange(len(test))))
        test = test.set_column(position, column.name, pa.concat_arrays([kept, blank]).take(indices))
    return test


def _transforms(train: pa.Table, service: FeatureService, signature: Signature) -> dict[str, Any]:
    terms = {"item": train["item_id"].to_pylist(), "genres": list(GENRES), "user_gender": ["F", "M"]}
    terms |= {"user": train["user_id"].to_pylist(), "user_occupation": list(OCCUPATIONS), "event_type": ["rating"]}
    terms = {column.vocabulary: [] for column in service.columns if column.vocabulary} | terms
    return {
        "version": TRANSFORMS_VERSION,
        "vocabularies": {name: sorted(set(of)) for name, of in terms.items()},
        "columns": {
            column.name: {**column.encoding_definition, **_moments(train, column)}
            for column in (USER_ID, *signature.input_columns)
            if column.encoding is not Encoding.NONE
        },
    }


def _moments(train: pa.Table, column: Column) -> dict[str, float]:
    if column.encoding is not Encoding.STANDARD:
        return {}
    values = np.array([v for v in train[column.name].to_pylist() if v is not None and v != column.missing], float)
    scaled = np.log1p(values) if column.curve is Curve.LOG else values
    return {"mean": float(scaled.mean()), "std": float(scaled.std())}
