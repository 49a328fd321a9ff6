"""The record of an origin: figures by hand, whatever is undefined named with its reason, and never a NaN."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.contracts.manifests import Questions
from feature_repo.contracts.questions import LIST_DEPTH, Asked, SimpleList
from serving.lists import report
from serving.lists.answering import CANDIDATES, Recall
from serving.lists.questions import OriginQuestions
from serving.lists.report import CANDIDATE, CHAMPION, HISTORIES, UNRANKED, Shown, empty_record, record_of, sentence
from serving.lists.simple import Chosen
from serving.recommender.catalogue import Catalogue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

ORIGIN = datetime(1998, 3, 1, tzinfo=UTC)
MANIFEST = Questions(
    questions_id="q",
    namespace="films",
    schema={},
    cutoff="1998-04-23T00:00:00Z",
    training_set_id="t",
    days=30,
    origins=[],
    note="",
    checksums={},
    sources={},
)
NOTHING: Mapping[str, list[list[int]]] = MappingProxyType({})
NO_MODEL = "no SavedModel was given"
ITEMS = 30
DISCOUNT = (1 / np.log2(np.arange(10) + 2)).tolist()
SIMPLE = tuple(method.value for method in SimpleList)


def padded(rows: Sequence[Sequence[int]], depth: int = LIST_DEPTH) -> NDArray[np.intp]:
    lists = np.full((len(rows), depth), -1, dtype=np.intp)
    for place, row in enumerate(rows):
        lists[place, : len(row)] = row
    return lists


def catalogue_of(
    items: int,
    events: Sequence[int] | None = None,
    terms: Mapping[str, Sequence[set[str]]] | None = None,
    begun: Mapping[int, datetime] = MappingProxyType({}),
) -> Catalogue:
    """Return a catalogue of items 00, 01 ..., by default with fewer events each, begun long ago, of the same genre."""
    ids = tuple(f"{number:02}" for number in range(items))
    counts = np.array(range(items, 0, -1) if events is None else events, dtype=np.int64)
    old = ORIGIN - timedelta(days=400)
    return Catalogue(
        item_ids=ids,
        titles=tuple(f"Film {item_id}" for item_id in ids),
        attributes=({},) * items,
        terms={name: tuple(map(frozenset, own)) for name, own in (terms or {"genres": [{"drama"}] * items}).items()},
        positions={item_id: position for position, item_id in enumerate(ids)},
        inputs={
            "item_event_count": counts,
            "item_first_event_time": np.array([int(begun.get(n, old).timestamp()) for n in range(items)]),
        },
        lifetimes=(),
        popular=np.argsort(-counts, kind="stable"),
        namesakes=np.arange(len(counts)),
    )


def shown_of(
    history: Sequence[int],
    answers: Sequence[Sequence[int]],
    *,
    lists: Mapping[str, Sequence[Sequence[int]]] = NOTHING,
    simple: Mapping[str, Sequence[Sequence[int]]] = NOTHING,
    channels: Mapping[str, Sequence[Sequence[int]]] = NOTHING,
    items: int = ITEMS,
    ranked: int = 200,
    new: Sequence[int] = (),
    catalogue: Catalogue | None = None,
    validation: float | None = 0.1,
) -> Shown:
    """Return what was shown to users 0, 1 ...: each list that is not given is empty, as is what no channel finds.

    Args:
        history: Of each user.
        answers: Of each user, positions; -1 is an item that the catalogue does not have.
        lists: Name → of each user, for those that are not simple; recall order is always there.
        simple: Name → of each user; those not given are empty.
        channels: Name → of each user; candidates are what they find, one after the other.
        items: In the catalogue.
        ranked: How many candidates.
        new: Items that nobody had before.
        catalogue: In place of the default.
        validation: Of every simple list.
    """
    nobody = [[] for _ in history]
    catalogue = catalogue or catalogue_of(items)
    pairs = [(user, item) for user, own in enumerate(answers) for item in own]
    owners, positions = np.array(pairs, dtype=np.intp).reshape(len(pairs), 2).T
    blended = [
        list(dict.fromkeys(item for of_users in channels.values() for item in of_users[user]))
        for user in range(len(history))
    ]
    questions = OriginQuestions(
        record={"origin": "1998-03-01T00:00:00Z", "end": "1998-03-31T00:00:00Z", "role": "test"},
        folder=Path("nowhere"),
        item_ids=np.array(catalogue.item_ids, dtype=np.str_),
        users=np.array([f"user {number}" for number in range(len(history))], dtype=np.str_),
        history=np.array(history, dtype=np.int64),
        times={asked: [ORIGIN] * len(history) for asked in Asked},
        ids={asked: np.arange(len(history)) for asked in Asked},
        answer_users=owners,
        answer_items=positions,
        answer_ids=np.array(["gone" if item < 0 else catalogue.item_ids[item] for _, item in pairs], dtype=np.str_),
        is_new=np.array([item in new for _, item in pairs], dtype=np.bool_),
    )
    named = {
        **{name: padded(rows) for name, rows in lists.items()},
        UNRANKED: padded(blended)[:, :ranked],
        **{name: padded(simple.get(name, nobody)) for name in SIMPLE},
    }
    return Shown(
        questions=questions,
        catalogue=catalogue,
        ranked=ranked,
        lists=dict.fromkeys(Asked, named),
        recall=Recall(padded(blended, CANDIDATES), {name: padded(own, CANDIDATES) for name, own in channels.items()}),
        simple=[Chosen(name, "", 1, validation) for name in SIMPLE],
        absent={} if CANDIDATE in lists else {CANDIDATE: NO_MODEL},
    )


def recorded(shown: Shown) -> dict[str, Any]:
    """Return the record as it is read again, after checks that hold for every record."""
    record = json.loads(json.dumps(record_of(MANIFEST, shown), allow_nan=False))
    assert_explained(record)
    return record


def assert_explained(record: Mapping[str, Any]) -> None:
    """Expect for every figure that is null an entry of `undefined` that says why."""
    undefined = record["undefined"]
    assert all(undefined.values())
    for table in record["tables"]:
        name = f"{table['asked']}, {table['history']} events"
        for row in table["rows"]:
            for figure, value in row.items():
                if value is None:
                    reason = undefined.get(name) or undefined.get(f"{name}, {figure}", "")
                    assert undefined.get(name) or row["list"] in reason, (name, figure, row["list"])
    for row in record["against"]:
        assert row["interval"] is not None or f"interval against {row['list']}" in undefined
        assert row["difference"] is not None or "at_origin, 5+ events" in undefined
    assert record["recall"] or "recall" in undefined
    assert record["recall"].get("lost_by_ranking", 0) is not None or CANDIDATE in undefined
    assert all(one["validation"] is not None for one in record["simple"]) or "choice of simple lists" in undefined
    for kind, rows in record["slices"].items():
        for row in rows:
            figures = [value for name, value in row.items() if name not in {"slice", "answers"}]
            assert None not in figures or f"{kind}, {row['slice']}" in undefined


def rows_of(record: Mapping[str, Any], asked: str = "at_origin", history: str = "5+") -> dict[str, dict[str, Any]]:
    (table,) = (each for each in record["tables"] if (each["asked"], each["history"]) == (asked, history))
    return {row["list"]: row for row in table["rows"]}


def against(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["list"]: row for row in record["against"]}


def test_tables_by_hand():
    shown = shown_of(
        history=[9, 5, 4, 1, 0],
        answers=[[3], [4, 5], [6], [7], [8, -1]],
        lists={CANDIDATE: [[3], [0, 4, 5], [0, 6], [], [8]], CHAMPION: [[0, 3], [], [], [], []]},
        simple={"EASE": [[3], [4, 5], [], [7], []]},
    )
    record = recorded(shown)
    assert [(table["asked"], table["history"], table["users"], table["answers"]) for table in record["tables"]] == [
        (asked, *group)
        for asked in ("at_origin", "before_next")
        for group in (("5+", 2, 3), ("1 to 4", 2, 2), ("0", 1, 2))
    ]
    assert list(rows_of(record)) == [CANDIDATE, CHAMPION, UNRANKED, *SIMPLE]
    second = (DISCOUNT[1] + DISCOUNT[2]) / (1 + DISCOUNT[1])
    own = rows_of(record)[CANDIDATE]
    assert own["ndcg_at_10"] == pytest.approx((1 + second) / 2)
    assert own["recall_at_10"] == own["hit_rate_at_10"] == own["recall_at_100"] == 1
    assert own["mrr_at_10"] == pytest.approx((1 + 1 / 2) / 2)
    assert own["map_at_10"] == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)
    assert own["interval"] == pytest.approx([second, 1])
    assert own["coverage"] == 4 / ITEMS
    assert own["diversity"] == 0
    assert own["overlap"] == 0
    few = rows_of(record, history="1 to 4")
    assert few[CANDIDATE]["ndcg_at_10"] == pytest.approx(DISCOUNT[1] / 2)
    assert few["EASE"]["ndcg_at_10"] == 1 / 2
    assert rows_of(record, history="0")[CANDIDATE]["recall_at_10"] == 1 / 2
    assert rows_of(record, "before_next") == rows_of(record)


def test_differences_by_hand():
    shown = shown_of(
        history=[9, 5, 4],
        answers=[[3], [4], [5]],
        lists={CANDIDATE: [[3], [0, 4], [5]]},
        simple={"EASE": [[0, 3], [4], []], "ItemCF": [[3], [0, 4], []]},
    )
    differences = against(recorded(shown))
    assert list(differences) == [UNRANKED, *SIMPLE]
    assert differences["EASE"]["difference"] == pytest.approx(0)
    assert differences["EASE"]["interval"] == pytest.approx([DISCOUNT[1] - 1, 1 - DISCOUNT[1]])
    assert differences["ItemCF"] == {"list": "ItemCF", "difference": 0, "interval": [0, 0]}
    assert differences["most liked"]["difference"] == pytest.approx((1 + DISCOUNT[1]) / 2)


def test_what_recall_and_ranking_each_lose_by_hand():
    shown = shown_of(
        history=[9, 5, 2],
        answers=[[3], [4, 5], [6]],
        lists={CANDIDATE: [[0, 3], [5], []]},
        channels={"near": [[0, 3], [4], []], "popular": [[0, 1], [0, 4, 5], [6]]},
        ranked=2,
    )
    recall = recorded(shown)["recall"]
    # The first two candidates: 0, 3 and 4, 0; 5 comes third.
    possible = [1, 1 / (1 + DISCOUNT[1])]
    assert recall["ranked"] == 2
    assert recall["recall_at_50"] == recall["recall_at_500"] == 1
    assert recall["best_possible"] == pytest.approx(np.mean(possible))
    assert recall["lost_by_recall"] == pytest.approx(1 - np.mean(possible))
    assert recall["lost_by_ranking"] == pytest.approx((1 - DISCOUNT[1]) / 2)
    assert recall["channels"] == [
        {"channel": "near", "recall_at_50": 0.75, "recall_at_200": 0.75, "recall_at_500": 0.75, "adds": 0.5},
        {"channel": "popular", "recall_at_50": 0.5, "recall_at_200": 0.5, "recall_at_500": 0.5, "adds": 0.25},
    ]


def test_what_is_reached_and_lost_makes_a_perfect_list():
    shown = shown_of(
        history=[9, 5],
        answers=[[3, 7, -1], [4, 5]],
        lists={CANDIDATE: [[0, 3], [5, 1]]},
        channels={"near": [[0, 3], [5, 1, 4]]},
    )
    record = recorded(shown)
    reached = rows_of(record)[CANDIDATE]["ndcg_at_10"]
    assert reached + record["recall"]["lost_by_ranking"] + record["recall"]["lost_by_recall"] == pytest.approx(1)


def test_slices_by_hand():
    shown = shown_of(
        history=[9, 0],
        answers=[[0, 1, 2], [3, -1]],
        lists={CANDIDATE: [[0, 1], [3]]},
        simple={"most liked": [[9] * 9 + [8, 2], []]},
        catalogue=catalogue_of(
            ITEMS,
            terms={"genres": [{"a"}, {"a", "b"}, {"b"}, {"c"}, *[set()] * (ITEMS - 4)]},
            begun={1: ORIGIN - timedelta(days=30), 2: ORIGIN - timedelta(days=31)},
        ),
        new=[3],
    )
    slices = recorded(shown)["slices"]

    def told(kind: str) -> list[tuple[Any, ...]]:
        names = ("slice", "answers", "candidate, first 10", "most liked, first 10", "most liked, first 100")
        return [tuple(row[name] for name in names) for row in slices[kind]]

    assert told("item age") == [
        ("new: nobody had it before", 1, 1, 0, 0),
        ("begun in the 30 days before", 1, 1, 0, 0),
        ("older", 2, 1 / 2, 0, 1 / 2),
    ]
    assert told("item popularity") == [
        ("the 100 with most events", 3, pytest.approx(2 / 3), 0, pytest.approx(1 / 3)),
        ("the 400 after them", 0, None, None, None),
        ("all others", 2, 1 / 2, 0, 0),
    ]
    assert told("term") == [("a", 2, 1, 0, 0), ("b", 2, 1 / 2, 0, 1 / 2), ("c", 1, 1, 0, 0)]


def test_examples_are_a_busy_a_middling_and_a_quiet_user():
    history = [*range(5, 16), 0, 3]
    shown = shown_of(
        history=history,
        answers=[[3]] * 9 + [[4, -1]] + [[5]] * 3,
        lists={CANDIDATE: [[0, 4, 9]] * len(history)},
    )
    examples = recorded(shown)["examples"]
    assert [example["events_before"] for example in examples] == [14, 10, 6]
    assert examples[0] == {
        "user": "user 9",
        "events_before": 14,
        "list": CANDIDATE,
        "shown": [
            {"item": "00", "title": "Film 00", "liked": False},
            {"item": "04", "title": "Film 04", "liked": True},
            {"item": "09", "title": "Film 09", "liked": False},
        ],
        "liked": [{"item": "04", "title": "Film 04"}, {"item": "gone", "title": "gone"}],
        "liked_in_all": 2,
    }


def test_nobody_has_five_events_before_the_origin():
    shown = shown_of([4, 0], [[3], [4]], lists={CANDIDATE: [[3], [4]]}, simple={"EASE": [[3], []]})
    record = recorded(shown)
    why = "no user with 5+ events before the origin likes something new"
    assert record["undefined"]["at_origin, 5+ events"] == why
    assert record["undefined"]["before_next, 5+ events"] == why
    assert record["undefined"]["recall"].startswith("no user with 5 events")
    assert record["recall"] == {}
    assert record["examples"] == []
    assert {row["difference"] for row in record["against"]} == {None}
    assert {row["ndcg_at_10"] for row in rows_of(record).values()} == {None}
    assert rows_of(record, history="1 to 4")[CANDIDATE]["ndcg_at_10"] == 1
    assert record["sentence"].startswith("Lists were not measured: nobody with 5 events")


def test_one_user_has_figures_without_intervals():
    shown = shown_of([9], [[3]], lists={CANDIDATE: [[0, 3]]}, channels={"near": [[3]]})
    record = recorded(shown)
    own = rows_of(record)[CANDIDATE]
    assert own["ndcg_at_10"] == pytest.approx(DISCOUNT[1])
    assert (own["interval"], own["overlap"]) == (None, None)
    names = ", ".join([CANDIDATE, UNRANKED, *SIMPLE])
    assert record["undefined"]["at_origin, 5+ events, interval"] == f"expected two users or more: {names}"
    assert record["undefined"]["at_origin, 5+ events, overlap"] == f"expected two users or more: {names}"
    assert record["undefined"]["interval against EASE"] == "expected two users or more, there are 1"
    assert [example["user"] for example in record["examples"]] == ["user 0"]


def test_of_lists_that_show_nothing_some_figures_are_undefined():
    record = recorded(shown_of([9, 9], [[3], [4]], lists={CANDIDATE: [[3, 1], [4, 2]]}))
    undefined = record["undefined"]
    names = ", ".join([UNRANKED, *SIMPLE])
    assert undefined["at_origin, 5+ events, novelty"] == (
        f"expected items that were shown, and events before the origin: {names}"
    )
    assert undefined["at_origin, 5+ events, diversity"] == f"expected a list with two items that have terms: {names}"
    assert "at_origin, 5+ events, interval" not in undefined
    assert rows_of(record)["EASE"]["coverage"] == rows_of(record)["EASE"]["overlap"] == 0


def test_nothing_is_known_of_any_item():
    catalogue = catalogue_of(ITEMS, events=[0] * ITEMS, terms={"genres": [set()] * ITEMS})
    shown = shown_of([9, 9], [[3], [4]], lists={CANDIDATE: [[3, 1], [4, 2]]}, catalogue=catalogue)
    record = recorded(shown)
    assert (rows_of(record)[CANDIDATE]["novelty"], rows_of(record)[CANDIDATE]["diversity"]) == (None, None)
    assert CANDIDATE in record["undefined"]["at_origin, 5+ events, novelty"]
    assert record["slices"]["term"] == []


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({}, None),
        ({"studio": [set()] * ITEMS}, None),
        ({"studio": [set()] * ITEMS, "genres": [{"a"}, {"b"}, *[set()] * 28]}, 1.0),
        ({"studio": [{"a"}] * ITEMS, "genres": [{"a"}, {"b"}, *[set()] * 28]}, 0.0),
    ],
    ids=["no attribute", "one without terms", "the first without terms", "the first has terms"],
)
def test_terms_are_those_of_the_first_attribute_that_has_any(terms, expected):
    catalogue = catalogue_of(ITEMS, terms=terms or {"none": []})
    shown = shown_of([9, 9], [[3], [4]], lists={CANDIDATE: [[0, 1], []]}, catalogue=catalogue)
    assert rows_of(recorded(shown))[CANDIDATE]["diversity"] == expected


def test_lists_that_are_shorter_than_ten():
    shown = shown_of([9, 9], [[3], [4]], lists={CANDIDATE: [[3], [0, 1]]}, simple={"EASE": [[0, 1, 3], []]})
    record = recorded(shown)
    assert rows_of(record)[CANDIDATE]["ndcg_at_10"] == 1 / 2
    assert rows_of(record)["EASE"]["ndcg_at_10"] == pytest.approx(DISCOUNT[2] / 2)
    assert len(record["examples"][0]["shown"]) == 1


def test_fewer_candidates_are_ranked_than_a_list_has_places():
    shown = shown_of([9, 9], [[3], [4]], channels={"near": [[0, 1, 3], [4]]}, ranked=2)
    record = recorded(shown)
    assert rows_of(record)[UNRANKED]["recall_at_100"] == 1 / 2
    assert record["recall"]["best_possible"] == 1 / 2


def test_a_catalogue_of_three_items():
    shown = shown_of(
        history=[9, 6],
        answers=[[0, 1, 2], [2]],
        lists={CANDIDATE: [[0, 1, 2], [2]]},
        simple={"most liked": [[2, 0, 1], [0, 1, 2]]},
        channels={"popular": [[0, 1, 2], [0, 1, 2]]},
        items=3,
    )
    record = recorded(shown)
    own, liked = rows_of(record)[CANDIDATE], rows_of(record)["most liked"]
    assert own["ndcg_at_10"] == own["map_at_10"] == own["ndcg_at_100"] == own["coverage"] == pytest.approx(1)
    assert liked["ndcg_at_10"] == pytest.approx((1 + DISCOUNT[2]) / 2)
    assert record["recall"]["best_possible"] == pytest.approx(1)
    assert record["recall"]["lost_by_recall"] == pytest.approx(0)


def test_an_answer_that_no_list_can_hold_is_missed():
    # As a pair of user and item, -1 of the second user would be the last item of the first.
    lists = [[0, ITEMS - 1], [ITEMS - 1]]
    shown = shown_of(
        history=[9, 9],
        answers=[[-1], [ITEMS - 1, -1]],
        lists={CANDIDATE: lists},
        channels={"near": lists},
        new=[-1],
    )
    record = recorded(shown)
    assert record["recall"]["channels"][0]["adds"] == record["recall"]["recall_at_500"] == 1 / 4
    assert rows_of(record)[CANDIDATE]["recall_at_10"] == 1 / 4
    assert record["tables"][0]["answers"] == 3
    age = {row["slice"]: (row["answers"], row["candidate, first 10"]) for row in record["slices"]["item age"]}
    assert age == {"new: nobody had it before": (2, 0), "begun in the 30 days before": (0, None), "older": (1, 1)}
    assert record["examples"][0]["liked"] == [{"item": "gone", "title": "gone"}]


def test_ties_everywhere():
    lists = [[0, 3], [0, 4], [0, 5]]
    shown = shown_of([9] * 3, [[3], [4], [5]], lists={CANDIDATE: lists}, simple=dict.fromkeys(SIMPLE, lists))
    record = recorded(shown)
    for name in SIMPLE:
        assert against(record)[name] == {"list": name, "difference": 0, "interval": [0, 0]}
    assert record["best_simple"] == "most liked"
    assert record["sentence"] == (
        f"No simple list beats the candidate's lists, and they do not beat {', '.join(SIMPLE)}: 0.631 "
        "(3 users, NDCG@10). No difference is beyond chance (95 %)."
    )


def test_there_is_no_candidate():
    shown = shown_of([9, 9], [[3], [4]], channels={"near": [[3], [0]]})
    record = recorded(shown)
    assert record["sentence"] == (
        "The candidate's lists were not measured: no SavedModel was given. "
        "NDCG@10 of the unranked lists is 0.500, of most liked 0.000."
    )
    assert record["against"] == []
    assert record["recall"]["lost_by_ranking"] is None
    assert record["recall"]["best_possible"] == 1 / 2
    assert record["undefined"][CANDIDATE] == NO_MODEL
    assert {example["list"] for example in record["examples"]} == {UNRANKED}
    assert "candidate, first 10" not in record["slices"]["item age"][0]


def test_nothing_was_validated():
    shown = shown_of([9, 9], [[3], [4]], lists={CANDIDATE: [[3], [4]]}, validation=None)
    record = recorded(shown)
    assert record["best_simple"] == "most liked"
    assert record["undefined"]["choice of simple lists"].startswith("no validation origin has a question")
    assert "choice of simple lists" not in recorded(shown_of([9], [[3]], validation=0.0))["undefined"]


def test_nobody_is_asked():
    record = recorded(shown_of([], [], lists={CANDIDATE: []}, channels={"near": []}))
    assert record["sentence"].startswith("Lists were not measured")
    assert {table["users"] for table in record["tables"]} == {0}


def of_figures(own: Sequence[int], **others: Sequence[int]) -> Shown:
    """Return what was shown to two users, of whom each finds the answer at a given place; others find nothing."""

    def lists(places: Sequence[int]) -> list[list[int]]:
        return [[*range(1, place + 1), 0] for place in places]

    simple = {name.replace("_", " "): lists(places) for name, places in others.items()}
    return shown_of([9, 5], [[0], [0]], lists={CANDIDATE: lists(own)}, simple=simple)


def test_the_candidate_beats_every_simple_list():
    assert sentence(of_figures([0, 0], EASE=[1, 1], ItemCF=[2, 2])) == (
        "The candidate's lists beat every simple list: 1.000 against 0.631 of EASE (2 users, NDCG@10)."
    )


def test_the_candidate_loses_to_some_simple_lists():
    assert sentence(of_figures([1, 1], EASE=[0, 1], ItemCF=[0, 0], most_liked=[1, 1])) == (
        "The candidate's lists lose to 2 of 6 simple lists: 0.631 against ItemCF (1.000), EASE (0.815) "
        "(2 users, NDCG@10)."
    )


def test_the_candidate_loses_to_every_simple_list():
    found = {name: [[0], [1, 0]] for name in SIMPLE}
    shown = shown_of([9, 5], [[0], [0]], lists={CANDIDATE: [[1], [1]]}, simple=found)
    assert sentence(shown) == (
        "The candidate's lists lose to every simple list: 0.000 against "
        + ", ".join(f"{name} (0.815)" for name in SIMPLE)
        + " (2 users, NDCG@10)."
    )


def test_the_candidate_equals_the_best_simple_lists():
    assert sentence(of_figures([1, 1], EASE=[1, 1], ItemCF=[2, 2])) == (
        "No simple list beats the candidate's lists, and they do not beat EASE: 0.631 (2 users, NDCG@10)."
    )


def test_the_sentence_is_followed_by_what_may_be_chance():
    each = {"EASE": [1, 1], "ItemCF": [0, 2]}
    assert recorded(of_figures([0, 0], **each))["sentence"].endswith(
        "(2 users, NDCG@10). These differences may be chance (95 %): from ItemCF."
    )
    assert recorded(of_figures([0, 0], EASE=[1, 1], ItemCF=[2, 2]))["sentence"].endswith(
        "(2 users, NDCG@10). Every difference is beyond chance (95 %)."
    )


def test_ranking_that_makes_lists_worse_is_said():
    shown = shown_of([9, 9], [[3], [4]], lists={CANDIDATE: [[], []]}, channels={"near": [[3], [0]]})
    assert recorded(shown)["sentence"].endswith("Ranking makes them worse: unranked they reach 0.500.")
    better = shown_of([9, 9], [[3], [4]], lists={CANDIDATE: [[3], [4]]}, channels={"near": [[3], [0]]})
    assert "Ranking makes" not in recorded(better)["sentence"]


def test_the_sentence_is_about_users_of_long_history():
    shown = shown_of(
        history=[9, 0, 0],
        answers=[[0], [0], [0]],
        lists={CANDIDATE: [[0], [], []]},
        simple={"EASE": [[], [0], [0]]},
    )
    assert sentence(shown).startswith("The candidate's lists beat every simple list: 1.000 against 0.000")


def test_a_record_without_questions_says_why_and_has_the_same_parts():
    record = json.loads(json.dumps(empty_record(MANIFEST, "the log is too short"), allow_nan=False))
    assert record.keys() == recorded(shown_of([9], [[3]])).keys()
    assert record["undefined"] == {"every figure": "the log is too short"}
    assert record["sentence"] == "Lists were not measured: the log is too short."


def test_every_history_belongs_to_one_group():
    history = np.arange(0, 60)
    groups = [report.group_of(history, group) for group in HISTORIES]
    assert np.sum(groups, axis=0).tolist() == [1] * 60
    assert history[groups[0]].min() == 5


@st.composite
def worlds(draw) -> Shown:
    """Draw what was shown of a catalogue of few items: lists of any length, answers that no list can hold."""
    items = draw(st.integers(1, 5))
    history = draw(st.lists(st.sampled_from([0, 1, 4, 5, 9]), min_size=1, max_size=4))
    own_list = st.lists(st.integers(0, items - 1), unique=True)

    def of_users(values: st.SearchStrategy[list[int]]) -> list[list[int]]:
        return [draw(values) for _ in history]

    lists = {CANDIDATE: of_users(own_list)} if draw(st.booleans()) else {}
    terms = draw(st.lists(st.sets(st.sampled_from("ab")), min_size=items, max_size=items))
    return shown_of(
        history=history,
        answers=of_users(st.lists(st.integers(-1, items - 1), unique=True, min_size=1)),
        lists=lists,
        simple={name: of_users(own_list) for name in ("most liked", "EASE")},
        channels={name: of_users(own_list) for name in draw(st.sampled_from([(), ("near",), ("near", "popular")]))},
        ranked=draw(st.integers(1, 3)),
        new=draw(st.lists(st.integers(-1, items - 1), unique=True)),
        catalogue=catalogue_of(
            items,
            events=draw(st.lists(st.integers(0, 3), min_size=items, max_size=items)),
            terms={"genres": terms},
        ),
        validation=draw(st.sampled_from([None, 0.0, 0.3])),
    )


@settings(max_examples=40, deadline=None)
@given(worlds())
def test_no_record_has_a_nan_or_a_null_without_a_reason(shown):
    record = recorded(shown)
    tables = record["tables"]
    assert sum(table["users"] for table in tables) == 2 * len(shown.questions.users)
    assert sum(table["answers"] for table in tables) == 2 * len(shown.questions.answer_items)
    popularity = record["slices"]["item popularity"]
    assert sum(row["answers"] for row in popularity) == len(shown.questions.answer_items)
    for channel in record["recall"].get("channels", []):
        assert -1e-12 <= channel["adds"] <= channel["recall_at_500"] + 1e-12 <= 1 + 2e-12
