"""What the encoder makes of a user's last events, drawn as tables; and what no model reads is refused.

A row is one event, the latest first; `-` is padding. Ages are in seconds, sessions are ordinals.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.contracts.features import SEQUENCE_ITEMS
from feature_repo.contracts.signatures import ranking
from models.encoding import build_encoder
from models.errors import UnknownFeatureError
from models.layers.sequence_ages import AGE_COUNT, SequenceAges
from models.layers.sessions_ago import SessionsAgo
from models.sequences import LAST, LONGEST
from tests.ascii_tables import parse_table
from tests.blank_values import blank
from tests.movielens import MOVIELENS, USER_SEQUENCE

NOW = int(datetime(1998, 4, 23, tzinfo=UTC).timestamp())
SEQUENCE = """
| item  | type   | seconds_ago | value | session | age_index | liked | disliked | session_index |
| i1    | rating | 0           | 5     | 9       | 2         | 2     | 0        | 2             |
| i2    | rating | 1           | 1     | 9       | 3         | 0     | 2        | 2             |
| new   | rating | 2           | 3     | 9       | 3         | 0     | 0        | 2             |
| i1    | rating | 3           | 4     | 9       | 4         | 1     | 0        | 2             |
| i3    | rating | 86400       | -     | 8       | 18        | 0     | 0        | 3             |
| i3    | view   | 31536000    | 3.5   | 4       | 26        | 0.5   | 0        | 7             |
| -     | -      | -           | -     | -       | 0         | 0     | 0        | 0             |
"""
_INPUTS = {"item": "items", "type": "types", "seconds_ago": "times", "value": "values", "session": "sessions"}


@pytest.fixture(scope="module")
def encoder(sequences):
    return build_encoder(sequences.signature, replace(sequences.transforms, prior_mean=3.0))


def _row(events, request=NOW, **others):
    """Return the raw columns of one row that has these events, all else missing."""
    signature = ranking(MOVIELENS, ("ranking", "user_sequence"))
    columns = {column.name: blank(column) for column in signature.input_columns} | others
    columns["request_time"] = request
    for cell, part in _INPUTS.items():
        name = getattr(LONGEST, part)
        values = list(columns[name])
        for place, event in enumerate(events):
            if event[cell] != "-":
                number = event[cell] if part in {"items", "types"} else float(event[cell])
                values[place] = NOW - int(number) if part == "times" else number
        columns[name] = values
    kinds = {"string": object, "int64": np.int64, "float32": np.float32}
    return {column.name: np.array([columns[column.name]], kinds[column.dtype]) for column in signature.input_columns}


def test_specification(encoder, sequences):
    events = parse_table(SEQUENCE)
    encoded = encoder.run(_row(events), sequences.signature)
    for place, event in enumerate(events):
        assert encoded[LONGEST.times][0, place] == int(event["age_index"]), event
        liked, disliked, known = encoded[LONGEST.values][0, place]
        assert (liked, disliked, known) == (float(event["liked"]), float(event["disliked"]), event["value"] != "-")
        assert encoded[LONGEST.sessions][0, place] == int(event["session_index"]), event
    terms = sequences.transforms.vocabularies
    items = [1 if each["item"] == "new" else 2 + terms["item"].index(each["item"]) for each in events[:-1]]
    assert encoded[LONGEST.items][0].tolist() == [*items, *[0] * (SEQUENCE_ITEMS - len(items))]
    assert encoded[LONGEST.types][0, :7].tolist() == [2, 2, 2, 2, 2, 1, 0]
    for name in (LONGEST.times, LONGEST.values, LONGEST.sessions):
        assert not encoded[name][0, 6:].any()


def test_without_a_request_ages_are_those_at_the_latest_event(encoder, sequences):
    events = parse_table(SEQUENCE)[3:]
    known = encoder.run(_row(events), sequences.signature)[LONGEST.times][0, :3].tolist()
    missing = encoder.run(_row(events, request=0), sequences.signature)[LONGEST.times][0, :3].tolist()
    assert (known, missing) == ([4, 18, 26], [2, 18, 26])
    times = np.array([[NOW - 3, NOW - 10, 0]])
    assert SequenceAges()(times).numpy().tolist() == [[2, 5, 0]]


_TIMES = st.integers(1, 2**33)


@settings(deadline=None, max_examples=50)
@given(st.lists(_TIMES, max_size=6), _TIMES)
def test_ages_are_logarithms_of_whole_seconds(times, request_time):
    padded = np.array([[*times, *[0] * (6 - len(times))]], np.int64)
    received = SequenceAges()(padded, np.array([request_time])).numpy()[0].tolist()
    # `bit_length` is the logarithm without an error at the powers of two.
    buckets = [min((max(request_time - time, 0) + 1).bit_length() - 1, 31) for time in times]
    assert received == [*(bucket + 2 for bucket in buckets), *[0] * (6 - len(times))]
    assert max(received) < AGE_COUNT


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 50), max_size=6))
def test_sessions_are_counted_back_from_the_latest(ordinals):
    latest_first = sorted(ordinals, reverse=True)
    padded = np.array([[*latest_first, *[0] * (6 - len(ordinals))]], np.int64)
    expected = [max(ordinals) - each + 2 for each in latest_first]
    assert SessionsAgo()(padded).numpy()[0].tolist() == [*expected, *[0] * (6 - len(ordinals))]


def test_the_names_are_those_of_the_contract():
    names = [LONGEST.items, LONGEST.times, LONGEST.types, LONGEST.values, LONGEST.sessions]
    assert names == [column.name for column in USER_SEQUENCE.features]


def test_ages_values_and_sessions_are_no_fields(encoder):
    fields = {*encoder.categorical, *encoder.numeric}
    assert {LONGEST.items, LONGEST.types, LAST.items} <= fields
    assert not fields & {LONGEST.times, LONGEST.values, LONGEST.sessions, LAST.values}
    assert encoder.sequences == (LONGEST, LAST)


@pytest.mark.parametrize(
    ("features", "unread"),
    [
        (("item_activity", "user_sequence_times"), "user_sequence_times"),
        (("ranking", "user_sequence_sessions"), "user_sequence_sessions"),
        (("item_activity", "user_last_values"), "user_last_values"),
    ],
)
def test_what_goes_beside_items_is_refused_without_them(features, unread, sequences):
    with pytest.raises(UnknownFeatureError, match=rf"received \['{unread}'\] without; take them out"):
        build_encoder(ranking(MOVIELENS, features), sequences.transforms)


def test_a_part_of_the_sequence_is_read_as_far_as_it_goes(sequences):
    features = ("item_activity", "user_sequence_items", "user_sequence_times")
    encoded = build_encoder(ranking(MOVIELENS, features), sequences.transforms)
    assert encoded.sequences == (replace(LONGEST, types="", values="", sessions=""),)
