"""A record of measured lists, as `serving.lists` writes it: 40 made-up items, a few users, three answers each."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_repo.contracts.manifests import Questions
from feature_repo.contracts.questions import LIST_DEPTH, Asked, Role, SimpleList
from serving.lists.answering import Recall
from serving.lists.questions import OriginQuestions
from serving.lists.report import CANDIDATE, UNRANKED, Shown, empty_record, record_of
from serving.lists.simple import Chosen
from serving.recommender.catalogue import Catalogue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ORIGIN, END = datetime(1998, 1, 15, tzinfo=UTC), datetime(1998, 2, 14, tzinfo=UTC)
ITEMS, ANSWERS_EACH, RANKED = 40, 3, 20
HISTORY = (300, 40, 12, 5, 2)
"""How many events each user has before the origin: nobody has none."""
LIKED = "Liked <b>& shown</b>"
"""Title of an item that everybody likes afterwards. It would break a page that takes it for HTML."""
_GENRES = ("Drama", "Comedy", "Sci-Fi")


def lists_record(
    *,
    namespace: str = "toy",
    training_set_id: str = "toy",
    history: Sequence[int] = HISTORY,
    candidate: bool = True,
    saved_model_sha256: str = "",
) -> dict[str, Any]:
    """Return the record; without a candidate recall and the simple lists alone are measured."""
    record = record_of(_questions(namespace, training_set_id), _shown(history, candidate=candidate), saved_model_sha256)
    return json.loads(json.dumps(record, sort_keys=True))


def unmeasured_record(why: str, *, namespace: str = "toy", training_set_id: str = "toy") -> dict[str, Any]:
    """Return the record where there was nothing to ask."""
    return empty_record(_questions(namespace, training_set_id), why)


def _questions(namespace: str, training_set_id: str) -> Questions:
    return Questions(
        questions_id="asked",
        namespace=namespace,
        schema={},
        cutoff="1998-04-23T00:00:00Z",
        training_set_id=training_set_id,
        days=30,
        origins=[],
        note="",
        checksums={},
        sources={},
    )


def _shown(history: Sequence[int], *, candidate: bool) -> Shown:
    random = np.random.default_rng(4)
    recalled = np.array([random.permutation(ITEMS) for _ in history])
    # What is liked are the first items: a list is the better the less noise its order has.
    simple = {name.value: _sorted(recalled, random, 20 - place) for place, name in enumerate(SimpleList)}
    lists = {UNRANKED: _deep(recalled[:, :RANKED]), **simple}
    if candidate:
        lists = {CANDIDATE: _sorted(recalled[:, :RANKED], random, 25), **lists}
    return Shown(
        questions=_asked(history),
        catalogue=_catalogue(),
        ranked=RANKED,
        lists=dict.fromkeys(Asked, lists),
        recall=Recall(recalled, {"popular": recalled[:, :25], "item2vec": recalled[:, 15:]}),
        simple=[
            Chosen(name.value, "λ 200" if name is SimpleList.EASE else "", 3, 0.1 + place / 100)
            for place, name in enumerate(SimpleList)
        ],
        absent={"champion": "there is no champion yet"} | ({} if candidate else {CANDIDATE: "no SavedModel was given"}),
    )


def _sorted(lists: NDArray[np.intp], random: np.random.Generator, noise: float) -> NDArray[np.intp]:
    order = np.argsort(lists + random.normal(0, noise, lists.shape), axis=1)
    return _deep(np.take_along_axis(lists, order, axis=1))


def _deep(lists: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return lists of LIST_DEPTH places, which end sooner."""
    deep = np.full((len(lists), LIST_DEPTH), -1, dtype=np.intp)
    deep[:, : lists.shape[1]] = lists
    return deep


def _asked(history: Sequence[int]) -> OriginQuestions:
    users = len(history)
    ids = np.array([f"{item:02d}" for item in range(ITEMS)])
    items = np.tile(np.arange(ANSWERS_EACH), users)
    return OriginQuestions(
        record={
            "origin": f"{ORIGIN:%Y-%m-%dT%H:%M:%SZ}",
            "end": f"{END:%Y-%m-%dT%H:%M:%SZ}",
            "role": Role.TEST.value,
            "folder": "19980115T000000Z",
            "users": users,
            "asked": users,
            "answers": users * ANSWERS_EACH,
            "new_items": 0,
            "repeats": 0.25,
        },
        folder=Path(),
        item_ids=ids,
        users=np.array([f"u{user}" for user in range(users)]),
        history=np.array(history),
        times=dict.fromkeys(Asked, [ORIGIN] * users),
        ids=dict.fromkeys(Asked, np.arange(users)),
        answer_users=np.repeat(np.arange(users), ANSWERS_EACH),
        answer_items=items,
        answer_ids=ids[items],
        is_new=np.zeros(len(items), dtype=np.bool_),
    )


def _catalogue() -> Catalogue:
    ids = tuple(f"{item:02d}" for item in range(ITEMS))
    begun = ORIGIN.timestamp() - 86_400 * np.arange(1, ITEMS + 1)
    return Catalogue(
        item_ids=ids,
        titles=(LIKED, *(f"Film {item}" for item in range(1, ITEMS))),
        attributes=({},) * ITEMS,
        terms={"genres": tuple(frozenset({_GENRES[item % 3], _GENRES[item % 2]}) for item in range(ITEMS))},
        positions={item_id: place for place, item_id in enumerate(ids)},
        inputs={"item_event_count": np.arange(ITEMS, 0, -1), "item_first_event_time": begun},
        lifetimes=(),
        popular=np.arange(ITEMS),
        namesakes=np.arange(ITEMS),
    )
