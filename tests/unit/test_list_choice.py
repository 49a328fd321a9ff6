"""Which variant of each simple list counts: what did best on validation, whatever the test would say."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.contracts.questions import LIST_DEPTH, LONG_HISTORY, SIMPLE_LISTS, SIMPLE_LISTS_FILE, Role, SimpleList
from pipelines.channels.fits import VARIANTS
from pipelines.io.arrow import arrow_schema
from serving.lists.questions import OriginQuestions
from serving.lists.simple import Chosen, best_of, choose, deciding, judged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

RIGHT, WRONG = ["x"], ["y"]
EASE_50, EASE_200, EASE_500 = (("EASE", f"λ {penalty}") for penalty in (50, 200, 500))
Lists = dict[tuple[str, str], list[list[str]]]
"""(method, variant) → the list of each user."""


@pytest.fixture
def origin(tmp_path: Path) -> Callable[..., OriginQuestions]:
    """Make an origin where everybody likes x, of a catalogue of x, y and z."""
    numbers = itertools.count()

    def made(role: Role, lists: Mapping[tuple[str, str], list[list[str]]], history: list[int]) -> OriginQuestions:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        users = np.array([f"u{number}" for number in range(len(history))], dtype=np.str_)
        rows = [
            {"method": method, "variant": variant, "user_id": user, "items": items}
            for (method, variant), of_users in lists.items()
            for user, items in zip(users.tolist(), of_users, strict=True)
        ]
        pq.write_table(pa.Table.from_pylist(rows, arrow_schema(SIMPLE_LISTS)), folder / SIMPLE_LISTS_FILE)
        return OriginQuestions(
            record={"role": role.value},
            folder=folder,
            item_ids=np.array(["x", "y", "z"]),
            users=users,
            history=np.array(history, dtype=np.int64),
            times={},
            ids={},
            answer_users=np.arange(len(users)),
            answer_items=np.zeros(len(users), dtype=np.intp),
            answer_ids=np.full(len(users), "x"),
            is_new=np.zeros(len(users), dtype=np.bool_),
        )

    return made


def chosen_of(chosen: list[Chosen], method: str) -> Chosen:
    (one,) = (one for one in chosen if one.method == method)
    return one


def test_what_is_best_on_test_alone_is_not_chosen(origin):
    on_validation = {EASE_50: [RIGHT, RIGHT], EASE_200: [WRONG, RIGHT]}
    on_test = {EASE_50: [WRONG, WRONG], EASE_200: [RIGHT, RIGHT]}
    chosen = choose([origin(Role.VALIDATION, on_validation, [9, 9]), origin(Role.TEST, on_test, [9, 9])])
    assert chosen_of(chosen, "EASE") == Chosen("EASE", "λ 50", tried=2, validation=1.0)


@pytest.mark.parametrize("role", [Role.TRAIN, Role.TEST])
def test_an_origin_of_another_role_is_not_even_read(origin, role):
    """One to train on has no simple lists."""
    other = origin(role, {EASE_50: [RIGHT]}, [9])
    (other.folder / SIMPLE_LISTS_FILE).unlink()
    chosen = choose([origin(Role.VALIDATION, {EASE_200: [RIGHT], EASE_50: [WRONG]}, [9]), other])
    assert chosen_of(chosen, "EASE").variant == "λ 200"


@pytest.mark.parametrize("others", [[], [EASE_200]])
def test_ties_go_to_the_first_by_name(origin, others):
    lists = {variant: [RIGHT, WRONG] for variant in (EASE_500, *others, EASE_50)}
    chosen = chosen_of(choose([origin(Role.VALIDATION, lists, [9, 9])]), "EASE")
    assert chosen == Chosen("EASE", min(variant for _, variant in lists), len(lists), validation=0.5)


DEFAULTS = {
    "most liked": "",
    "most liked, 7 days": "",
    "most liked, 30 days": "",
    "most liked, recency-weighted": "half-life 30 days",
    "ItemCF": "shrinkage 0",
    "EASE": "λ 500",
}


@pytest.mark.parametrize("origins", ["none", "test alone", "nobody asked"])
def test_without_questions_to_choose_on_the_stated_variants_count(origin, origins):
    given = {
        "none": [],
        "test alone": [origin(Role.TEST, {EASE_50: [RIGHT]}, [9])],
        "nobody asked": [origin(Role.VALIDATION, {}, []), origin(Role.TEST, {EASE_50: [RIGHT]}, [9])],
    }
    chosen = choose(given[origins])
    assert {one.method: one.variant for one in chosen} == DEFAULTS
    assert [one.name for one in chosen] == [method.value for method in SimpleList]
    assert {(one.tried, one.validation) for one in chosen} == {(1, None)}
    assert best_of(chosen).name == "most liked"


def test_the_stated_variants_are_among_those_that_the_data_plane_writes():
    assert set(DEFAULTS.items()) <= {(each.method.value, each.parameters) for each in VARIANTS}


def test_verdicts_are_about_users_with_a_long_history(origin):
    lists = {EASE_50: [RIGHT, WRONG, WRONG], EASE_200: [WRONG, RIGHT, RIGHT]}
    validation = origin(Role.VALIDATION, lists, [LONG_HISTORY, LONG_HISTORY - 1, 0])
    assert judged(validation).tolist() == [True, False, False]
    assert chosen_of(choose([validation]), "EASE") == Chosen("EASE", "λ 50", tried=2, validation=1.0)


def test_verdicts_are_about_everybody_where_nobody_has_a_long_history(origin):
    lists = {EASE_50: [RIGHT, WRONG, WRONG], EASE_200: [WRONG, RIGHT, RIGHT]}
    validation = origin(Role.VALIDATION, lists, [LONG_HISTORY - 1, 1, 0])
    assert judged(validation).tolist() == [True, True, True]
    assert chosen_of(choose([validation]), "EASE") == Chosen("EASE", "λ 200", 2, pytest.approx(2 / 3))


def test_every_user_of_all_validation_origins_counts_once(origin):
    few = origin(Role.VALIDATION, {EASE_50: [RIGHT], EASE_200: [WRONG]}, [9])
    many = origin(Role.VALIDATION, {EASE_50: [WRONG] * 3, EASE_200: [WRONG, RIGHT, RIGHT]}, [9] * 3)
    assert chosen_of(choose([few, many]), "EASE") == Chosen("EASE", "λ 200", 2, validation=0.5)


def test_a_variant_is_chosen_among_those_of_its_own_list(origin):
    lists = {
        ("EASE", "λ 50"): [["y", "z", "x"]],
        ("EASE", "λ 200"): [["y", "x"]],
        ("ItemCF", "shrinkage 10"): [RIGHT],
        ("most liked", ""): [WRONG],
    }
    chosen = choose([origin(Role.VALIDATION, lists, [9])])
    assert chosen_of(chosen, "EASE") == Chosen("EASE", "λ 200", 2, pytest.approx(1 / np.log2(3)))
    assert chosen_of(chosen, "ItemCF") == Chosen("ItemCF", "shrinkage 10", 1, 1.0)
    assert chosen_of(chosen, "most liked") == Chosen("most liked", "", 1, 0.0)
    assert best_of(chosen).name == "ItemCF"


def test_of_equal_lists_the_simplest_is_the_best(origin):
    lists = {(method.value, DEFAULTS[method.value]): [RIGHT, WRONG] for method in reversed(SimpleList)}
    chosen = choose([origin(Role.VALIDATION, lists, [9, 9])])
    assert best_of(chosen) == Chosen("most liked", "", 1, 0.5)


def test_a_list_that_hits_nothing_is_no_worse_than_one_that_was_not_validated():
    chosen = [Chosen("most liked", "", 1, None), Chosen("EASE", "λ 50", 1, 0.0)]
    assert best_of(chosen).name == "EASE"


def test_lists_are_read_for_each_user_and_end_where_they_end(origin):
    lists: Lists = {EASE_50: [["z", "x"], [], ["gone", "y"]], ("most liked", ""): [["x", "y", "z"]] * 3}
    asked = origin(Role.VALIDATION, lists, [9, 9, 9])
    found = asked.simple_lists()
    assert {key: rows.shape for key, rows in found.items()} == dict.fromkeys(lists, (3, LIST_DEPTH))
    assert found[EASE_50][:, :3].tolist() == [[2, 0, -1], [-1, -1, -1], [-1, 1, -1]]
    assert found["most liked", ""][:, :4].tolist() == [[0, 1, 2, -1]] * 3
    assert deciding(asked)[EASE_50].tolist() == pytest.approx([1 / np.log2(3), 0, 0])


def test_nobody_s_lists(origin):
    assert origin(Role.TEST, {}, []).simple_lists() == {}
