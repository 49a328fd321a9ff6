"""Candidates → label rows, beside a second implementation in plain Python."""

from __future__ import annotations

import random
import shutil
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.contracts.channels import channels
from feature_repo.contracts.datasets import EVENTS
from feature_repo.contracts.places import MANIFEST, Namespace
from feature_repo.contracts.questions import Role
from feature_repo.contracts.schemas import MOVIELENS, EventType, Positive
from pipelines.io.lake import stored_dataset
from pipelines.questions.origins import Origin
from pipelines.settings import Settings
from pipelines.training import listed
from pipelines.training.errors import CandidatesError, TrainingDataError
from pipelines.training.listed import ListedRows
from pipelines.training.recalled import find_recalled
from tests.lake_world import DAY_ONE, write_events
from tests.recalled_world import change_manifest, change_questions, change_snapshot, likes, rounds_of, write_recalled

SHOP = replace(
    MOVIELENS,
    event_types=(EventType("purchase"), EventType("view"), EventType("return", counted=False)),
    positive=Positive(("purchase",), 1.0),
    is_implicit=True,
)
CUTOFF = DAY_ONE + timedelta(days=12)


def day(number):
    return DAY_ONE + timedelta(days=number)


ORIGINS = [
    Origin(day(2), day(4), Role.TRAIN),
    Origin(day(4), day(6), Role.TRAIN),
    Origin(day(6), day(8), Role.VALIDATION),
    Origin(day(8), day(10), Role.TEST),
]
SPLITS = {Role.TRAIN: "train", Role.VALIDATION: "valid", Role.TEST: "test"}


def log(seed, schema=MOVIELENS, size=160):
    """Draw events of few users at few moments, so that much happens at once, and midnights are among the moments."""
    dice = random.Random(seed)
    types = [each.name for each in schema.event_types]
    drawn = {}
    for _ in range(size):
        time = DAY_ONE + timedelta(hours=6 * dice.randrange(4 * 12), microseconds=dice.choice([0, 0, 1, 999_999]))
        key = f"u{dice.randrange(6)}", f"i{dice.randrange(14)}", dice.choice(types), time
        drawn[key] = {
            "user_id": key[0],
            "item_id": key[1],
            "event_type": key[2],
            "value": float(dice.randint(1, 5)),
            "event_time": time,
        }
    return list(drawn.values())


def oracle(events, rounds, schema):
    """Return split → rows, by one loop after another."""
    rows, group = {split: [] for split in SPLITS.values()}, 0
    counted = [row for row in events if row["event_type"] in schema.counted_types]
    for each in rounds:
        for question in each.questions:
            if question["asked"] != "at_origin":
                continue
            for item in sorted(
                {row["item_id"] for row in each.candidates if row["question_id"] == question["question_id"]}
            ):
                own = sorted(
                    (row["event_time"], row["event_type"], row["value"])
                    for row in counted
                    if (row["user_id"], row["item_id"]) == (question["user_id"], item)
                    and question["asked_time"] <= row["event_time"] < each.origin.end
                )
                liked = {(row["user_id"], row["item_id"]) for row in each.answers}
                row = {
                    "user_id": question["user_id"],
                    "item_id": item,
                    "event_time": question["asked_time"],
                    "value": own[0][2] if own else 0.0,
                    "label": int((question["user_id"], item) in liked),
                    "is_drawn": int(not own),
                    "group_id": group,
                    "sample_weight": 1.0,
                }
                told = {
                    row["channel"]: row
                    for row in each.candidates
                    if (row["question_id"], row["item_id"]) == (question["question_id"], item)
                }
                for name, channel in channels(schema).items():
                    found = told.get(name, {})
                    if channel.score:
                        row[f"pair_{name}_score"] = found.get("score")
                    row[f"pair_{name}_rank"] = found.get("rank")
                    row[f"pair_{name}_fitted_at"] = found.get("fitted_at")
                rows[SPLITS[each.origin.role]].append(row)
            group += 1
    return rows


class World:
    """A lake, questions and candidates in a folder that goes with the block."""

    def __init__(self, events, rounds, schema=MOVIELENS, cutoff=CUTOFF):
        self.events, self.rounds, self.schema, self.cutoff = events, rounds, schema, cutoff

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp())
        self.place = Namespace(self.folder, "small")
        write_events(self.place, self.events)
        write_recalled(self.place, self.rounds, self.cutoff, self.schema)
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder)

    def rows(self, **changes):
        """Return split → rows, and the splits' ends."""
        events = stored_dataset(self.place, EVENTS).snapshot(before=self.cutoff)
        recalled = find_recalled(self.place, self.schema, self.cutoff, "offered")
        listed_rows = ListedRows(Settings(state=self.folder, **changes), self.schema, events, recalled)
        splits = listed_rows.write(self.folder / "labels.parquet")
        written = pq.read_table(self.folder / "labels.parquet").to_pylist()
        assert [row.pop("example_id") for row in written] == list(range(len(written)))
        found, start = {}, 0
        for split, count in splits.rows.items():
            found[split] = written[start : start + count]
            start += count
        assert start == len(written)
        return found, splits, listed_rows.prior_mean(Path(), splits)


def learnable(rows):
    return all(0 < sum(row["label"] for row in rows[name]) < len(rows[name]) for name in ("train", "valid")) and bool(
        rows["test"]
    )


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), schema=st.sampled_from([MOVIELENS, SHOP]), at_once=st.sampled_from([1, 3, 1000]))
def test_rows_are_what_a_second_implementation_makes_of_the_same(seed, schema, at_once):
    events = log(seed, schema)
    rounds = rounds_of(events, ORIGINS, schema, seed)
    expected = oracle(events, rounds, schema)
    with World(events, rounds, schema) as world, pytest.MonkeyPatch.context() as patch:
        patch.setattr(listed, "_QUESTIONS_AT_ONCE", at_once)
        if not learnable(expected):
            with pytest.raises(TrainingDataError):
                world.rows()
            return
        found, splits, prior = world.rows()
    assert found == expected
    assert (splits.train_end_us, splits.valid_end_us) == tuple(int(day(n).timestamp()) * 10**6 for n in (6, 8))
    values = [
        row["value"] for row in events if row["event_type"] in schema.counted_types and row["event_time"] < day(6)
    ]
    assert prior == pytest.approx(sum(values) / len(values))
    assert all(row["event_time"] < day(6) for row in found["train"])
    assert all(day(6) <= row["event_time"] < day(8) for row in found["valid"])
    assert {row["event_time"] for row in found["test"]} == {day(8)}


def test_every_case_occurs_in_what_is_compared():
    """The second implementation would not notice what its worlds do not have."""

    def train_rows(schema):
        for seed in range(10):
            events = log(seed, schema)
            yield from oracle(events, rounds_of(events, ORIGINS, schema, seed), schema)["train"]

    train, shop = (list(train_rows(schema)) for schema in (MOVIELENS, SHOP))
    assert any(not row["label"] and not row["is_drawn"] for row in train), "had it, and did not like it"
    assert any(row["label"] and row["value"] < 4 for row in train), "liked later what was first not"
    scored = [row for row in train if row["pair_ease_rank"]]
    assert any(row["pair_ease_score"] is None for row in scored)
    assert any(row["pair_ease_score"] is not None for row in scored)
    assert any(row["pair_ease_fitted_at"] is None for row in train)
    assert any(row["label"] and not row["is_drawn"] for row in shop)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_events_after_an_origin_s_end_change_none_of_its_rows(seed):
    """Questions and candidates are of before; only the label rows could look too far."""
    events = log(seed)
    rounds = rounds_of(events, ORIGINS, MOVIELENS, seed)
    if not learnable(oracle(events, rounds, MOVIELENS)):
        return
    users, items = ({row[key] for row in events} for key in ("user_id", "item_id"))
    taken = {(row["user_id"], row["item_id"], row["event_time"]) for row in events}
    for end, unchanged in ((6, ("train",)), (8, ("train", "valid")), (10, ("train", "valid", "test"))):
        planted = [
            {"user_id": user, "item_id": item, "event_type": "rating", "value": 5.0, "event_time": day(end)}
            for user in users
            for item in items
            if (user, item, day(end)) not in taken
        ]
        with World(events, rounds) as plain, World([*events, *planted], rounds) as other:
            before, after = plain.rows()[0], other.rows()[0]
        assert {name: before[name] for name in unchanged} == {name: after[name] for name in unchanged}


def kind_of(row):
    return row["group_id"], row["is_drawn"], row["label"]


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6), most=st.integers(1, 4))
def test_train_alone_leaves_rows_out_and_those_that_stay_stand_for_their_kind(seed, most):
    events = log(seed)
    rounds = rounds_of(events, ORIGINS, MOVIELENS, seed)
    whole = oracle(events, rounds, MOVIELENS)
    if not learnable(whole):
        return
    asked = sum(
        question["asked"] == "at_origin"
        for each in rounds
        if each.origin.role is Role.TRAIN
        for question in each.questions
    )
    with World(events, rounds) as world, pytest.MonkeyPatch.context() as patched:
        patched.setattr(listed, "_LEAST_OF_A_KIND", 1)
        found, again = (world.rows(list_rows=most * asked)[0] for _ in range(2))
        wider = world.rows(list_rows=(most + 1) * asked)[0]
        least, every_row = world.rows(list_rows=1)[0], world.rows(list_rows=0)[0]
    assert found == again
    assert every_row == whole
    assert {name: found[name] for name in ("valid", "test")} == {name: whole[name] for name in ("valid", "test")}
    for kind in {kind_of(row) for row in whole["train"]}:
        every, kept, more, fewest = (
            [row for row in rows["train"] if kind_of(row) == kind] for rows in (whole, found, wider, least)
        )
        assert (len(kept), len(fewest)) == (min(most, len(every)), 1)
        for rows in (kept, more, fewest):
            weights = [row.pop("sample_weight") for row in rows]
            assert sum(weights) == pytest.approx(len(every), rel=1e-6), "those that are kept stand for all"
            assert len(set(weights)) == 1
        for row in every:
            row.pop("sample_weight")
        assert all(row in every for row in kept)
        assert all(row in more for row in kept), "another row takes no row's place"


EVENTS_OF_ONE = log(1)


def rounds_of_one():
    return rounds_of(EVENTS_OF_ONE, ORIGINS, MOVIELENS, 1)


def refused(rounds, match, events=EVENTS_OF_ONE):
    with World(events, rounds) as world, pytest.raises(CandidatesError, match=match):
        world.rows()


@pytest.mark.parametrize("number", range(4))
def test_a_fit_after_the_question_knows_the_answer_and_is_refused(number):
    rounds = rounds_of_one()
    row = rounds[number].candidates[0]
    asked = rounds[number].questions[row["question_id"]]["asked_time"]
    row["fitted_at"] = asked
    with World(EVENTS_OF_ONE, rounds) as world:
        world.rows()
    row["fitted_at"] = asked + timedelta(microseconds=1)
    refused(rounds, r"expected fits at or before the question, .* received 1 others; remove .*lists candidates")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"channel": "gossip"}, r"expected channels among \['ease', .*received 1 others"),
        ({"question_id": 10_000}, "expected rows of its questions, received 1 others"),
        ({"rank": 0}, "expected ranks from 1"),
        ({"score": float("nan")}, "expected finite scores, or null"),
    ],
)
def test_candidates_that_nothing_explains_are_refused(changes, match):
    rounds = rounds_of_one()
    rounds[1].candidates[0] |= changes
    refused(rounds, match)


def test_a_channel_that_says_two_things_of_an_item_is_refused():
    rounds = rounds_of_one()
    rounds[1].candidates.append({**rounds[1].candidates[0], "rank": 7})
    refused(rounds, "expected one row for each question, item and channel, received several for the item")


@pytest.mark.parametrize("time", [day(4) - timedelta(microseconds=1), day(6)])
def test_questions_outside_their_origin_s_days_are_refused(time):
    rounds = rounds_of_one()
    rounds[1].questions[0]["asked_time"] = time
    for row in rounds[1].candidates:
        row["fitted_at"] = day(1)
    refused(rounds, "expected questions from 1998-03-05T00:00:00Z to before 1998-03-07T00:00:00Z, received 1 others")


def test_answers_of_another_log_are_refused():
    rounds = rounds_of_one()
    pairs = {(rounds[0].questions[row["question_id"]]["user_id"], row["item_id"]) for row in rounds[0].candidates}
    events = [
        row
        for row in EVENTS_OF_ONE
        if not (likes(row, MOVIELENS) and (row["user_id"], row["item_id"]) in pairs and day(2) <= row["event_time"])
    ]
    refused(rounds, "expected answers with an event in the lake, received one of the user", events)


@pytest.mark.parametrize("origins", [ORIGINS[:3], ORIGINS[2:], [*ORIGINS[:2], ORIGINS[3]]])
def test_a_role_without_origins_is_named(origins):
    rounds = rounds_of(EVENTS_OF_ONE, origins, MOVIELENS, 1)
    with World(EVENTS_OF_ONE, rounds) as world, pytest.raises(TrainingDataError) as caught:
        world.rows()
    missing = {each.role for each in ORIGINS} - {each.role for each in origins}
    assert f"expected origins of each role with questions, received none of {[*map(str, missing)]}" in str(caught.value)
    assert "train only specs whose rows are of the kind ranking" in str(caught.value)


def test_a_role_with_rows_of_one_class_is_named_with_its_origins():
    rounds = rounds_of_one()
    liked = {(row["user_id"], row["item_id"]) for row in rounds[2].answers}
    users = {row["question_id"]: row["user_id"] for row in rounds[2].questions}
    rounds[2].candidates = [
        row for row in rounds[2].candidates if (users[row["question_id"]], row["item_id"]) not in liked
    ]
    match = (
        r"rows of both classes in valid, received \d+ rows, 0 of them positive, of the validation origins \['1998-03-07"
    )
    with World(EVENTS_OF_ONE, rounds) as world, pytest.raises(TrainingDataError, match=match):
        world.rows()


@pytest.mark.parametrize(
    ("role", "end", "match"),
    [
        (0, day(7), "answers of train origins that end at or before the first validation origin, 1998-03-07"),
        (2, day(9), "answers of validation origins that end at or before the first test origin, 1998-03-09"),
    ],
)
def test_answers_among_what_a_later_role_is_asked_are_refused(role, end, match):
    origins = [replace(each, end=end) if number == role else each for number, each in enumerate(ORIGINS)]
    refused(rounds_of(EVENTS_OF_ONE, origins, MOVIELENS, 1), match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda place: shutil.rmtree(place.recalled), r"candidates offered: expected the record .* found none .*lists"),
        (lambda place: shutil.rmtree(place.questions), r"questions asked of candidates offered: .*pipelines questions"),
        (lambda place: change_manifest(place, namespace="other"), "offered: namespace: expected 'small', received 'ot"),
        (lambda place: change_questions(place, namespace="other"), "questions asked: namespace: expected 'small'"),
        (lambda place: change_manifest(place, schema=SHOP.to_json()), "offered: data set's schema: expected"),
        (lambda place: change_manifest(place, candidates_id="another"), "offered: id: expected 'offered'"),
        (lambda place: change_questions(place, questions_id="another"), "questions asked: id: expected 'asked'"),
        (lambda place: change_questions(place, cutoff="1998-03-14T00:00:00Z"), r"cutoff 1998-03-14T.*know later event"),
        (
            lambda place: change_snapshot(place, "ease", definition="0"),
            r"definition of the channel ease: .*received '0'",
        ),
        (lambda place: change_snapshot(place, "item2vec", definition=""), "definition of the channel item2vec: exp"),
        (lambda place: change_snapshot(place, "views", views={"user_activity": "v"}), "feature views: expected"),
        (lambda place: min(place.questions.glob("*/*/snapshot.json")).unlink(), "expected the snapshot that recall"),
        (lambda place: change_manifest(place, checksums={}), "SHA-256: expected None"),
        (lambda place: (place.recalled / "offered" / MANIFEST).write_text("{}"), "missing fields"),
        (lambda place: next(place.recalled.glob("*/*.parquet")).unlink(), r"expected the Parquet file .*lists candid"),
        (lambda place: next(place.questions.glob("*/*/ans*")).write_bytes(b""), r"SHA-256: expected .*remove"),
    ],
)
def test_candidates_that_are_not_what_their_records_say_are_refused(change, match):
    with World(EVENTS_OF_ONE, rounds_of_one()) as world:
        change(world.place)
        with pytest.raises(CandidatesError, match=match):
            world.rows()


def test_an_origin_without_questions_has_no_candidates_and_is_passed_over():
    quiet = Origin(day(1), day(1) + timedelta(hours=1), Role.TRAIN)
    events = [row for row in EVENTS_OF_ONE if not quiet.moment <= row["event_time"] < quiet.end]
    rounds = rounds_of(events, [quiet, *ORIGINS], MOVIELENS, 1)
    assert not rounds[0].questions
    with World(events, rounds) as world:
        assert world.rows()[0] == oracle(events, rounds, MOVIELENS)
