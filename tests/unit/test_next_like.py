"""The time-ordered test of recall: its questions and ranks by hand, and its scores beside the plainest Python."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.embeddings import next_like
from pipelines.embeddings.next_like import Log, Questions

USERS, ITEMS = 4, 6

events = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, USERS - 1), st.integers(0, ITEMS - 1), st.booleans()),
    min_size=1,
    max_size=40,
    unique_by=lambda event: event[:3],
)


def log_of(rows: list[tuple[int, int, int, bool]]) -> Log:
    times, users, items, liked = (np.array(column) for column in zip(*sorted(rows), strict=True))
    return Log(users, items, liked, times, ITEMS)


@given(events, st.integers(0, 9), st.integers(1, 5))
def test_questions_know_what_lies_strictly_before_them(
    rows: list[tuple[int, int, int, bool]], moment: int, last: int
) -> None:
    expected = []
    for time, user, item, liked in sorted(rows):
        earlier = [row for row in rows if row[1] == user and row[0] < time]
        latest = sorted(earlier, key=lambda row: (-row[0], row[2]))[:last]
        likes = [row[2] for row in latest if row[3]]
        if liked and time >= moment and likes and item not in {row[2] for row in earlier}:
            expected.append((user, item, likes, sorted({row[2] for row in earlier})))
    found = next_like.ask(log_of(rows), moment, last, 1000, 1)
    received = [
        (user, target, liked.tolist(), seen.tolist())
        for user, target, liked, seen in zip(
            found.askers.tolist(), found.targets.tolist(), found.lasts, found.seen, strict=True
        )
    ]
    assert received == expected


def test_of_too_many_likes_a_sample_is_asked() -> None:
    rows = [(time, user, (time + user) % ITEMS, True) for time in range(5) for user in range(USERS)]
    whole, some = (next_like.ask(log_of(rows), 1, 3, most, 1) for most in (1000, 7))
    assert len(whole) == 16
    assert len(some) == 7
    pairs = set(zip(whole.askers.tolist(), whole.targets.tolist(), strict=True))
    assert set(zip(some.askers.tolist(), some.targets.tolist(), strict=True)) < pairs


def test_ranks_leave_out_what_was_seen_and_share_ties() -> None:
    scores = np.array([[5.0, 4.0, 4.0, 3.0, -np.inf, 9.0]] * 4)
    asked = Questions(
        lasts=(np.array([5]),) * 4,
        seen=(np.array([5]), np.array([0, 5]), np.array([5]), np.array([5])),
        targets=np.array([0, 1, 3, 4]),
        askers=np.arange(4),
    )
    assert next_like.ranks(lambda lasts: scores[: len(lasts)], asked).tolist() == [0.0, 0.5, 3.0, math.inf]


def test_item_cosines_are_the_users_of_both_over_the_root_of_the_users_of_either() -> None:
    likes = {0: {0, 1, 2}, 1: {1, 2}, 2: {2, 3}, 3: {4}}
    rows = [(item, user, item, True) for item, users in likes.items() for user in users]
    rows.append((9, 0, 3, False))
    score = next_like.by_item_cosine(log_of(rows))
    cosine = {
        (a, b): len(likes[a] & likes[b]) / math.sqrt(len(likes[a]) * len(likes[b])) for a in range(3) for b in range(4)
    }
    by_first = [cosine[1, item] + next_like.RECENCY_DECAY * cosine[0, item] for item in range(4)]
    received = score([np.array([1, 0]), np.array([2])])
    assert received[0, :4].tolist() == pytest.approx(by_first)
    assert received[1, :4].tolist() == pytest.approx([cosine[2, item] for item in range(4)])


def test_popularity_counts_likes_alone() -> None:
    rows = [(0, 0, 1, True), (1, 1, 1, True), (2, 2, 1, False), (3, 0, 2, True), (4, 0, 3, False)]
    assert next_like.by_popularity(log_of(rows))([np.array([0])]).tolist() == [[0, 2, 1, 0, 0, 0]]


def test_vectors_score_by_the_latest_like_best_and_unknown_items_not_at_all() -> None:
    angles = np.array([0.0, 0.3, 0.6, 0.9, 1.2, 0.0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    known = np.array([True] * 5 + [False])
    lasts = [np.array([4, 0, 5]), np.array([0, 4]), np.array([5])]
    by_mean = next_like.by_user_vector(vectors, known)(lasts)
    assert (by_mean[:, 5] == -np.inf).all()
    assert by_mean[0, 3] > by_mean[0, 1]
    assert by_mean[1, 1] > by_mean[1, 3]
    assert by_mean[2, :5].tolist() == [0] * 5
    near = next_like.by_nearest(vectors, known)(lasts)
    assert near[0].tolist() == near[1].tolist()
    assert near[0, :5] == pytest.approx([1, math.cos(0.3), math.cos(0.6), math.cos(0.3), 1])


def test_a_log_is_cut_before_a_moment() -> None:
    log = log_of([(time, 0, time, True) for time in range(5)])
    lengths = [len(log.before(moment).items) for moment in range(7)]
    assert lengths == [0, 1, 2, 3, 4, 5, 5]
    assert all(a <= b for a, b in pairwise(log.before(3).times.tolist()))
