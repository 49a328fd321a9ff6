"""Where in a log lists are judged: always inside it, validation before test, and nothing where there is no room."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.contracts.questions import Role
from pipelines.errors import JobError
from pipelines.questions.origins import (
    Origin,
    given_origin,
    midnight_after,
    midnight_from,
    origins_after,
    spaced_origins,
)

DAY = timedelta(days=1)
CUTOFF = datetime(1998, 4, 23, tzinfo=UTC)

lengths = st.one_of(
    st.timedeltas(timedelta(microseconds=1), 3 * DAY),
    st.timedeltas(timedelta(microseconds=1), 800 * DAY),
    st.integers(1, 400).map(lambda days: days * DAY),
)
"""How long before the cutoff a log begins: whole days among them, and logs of less than one."""
horizons = st.one_of(st.integers(1, 10), st.integers(1, 366))
counts = st.integers(1, 52)


def days_before(days: float) -> datetime:
    return CUTOFF - timedelta(days=days)


def told(origins: list[Origin]) -> list[tuple[float, float, str]]:
    """Return of each origin how many days before the cutoff it lies and its answers end, and its role."""
    return [((CUTOFF - each.moment) / DAY, (CUTOFF - each.end) / DAY, each.role.value) for each in origins]


def assert_sound(origins: list[Origin], first_event: datetime, cutoff: datetime) -> None:
    """Hold of every list of origins, whoever asked for it."""
    for each in origins:
        assert each.moment.time() == time()
        assert each.moment.tzinfo is UTC
        assert first_event < each.moment < each.end <= cutoff
    assert [each.moment for each in origins] == sorted({each.moment for each in origins})
    validating = [each for each in origins if each.role is Role.VALIDATION]
    tests = [each for each in origins if each.role is Role.TEST]
    assert origins == [*validating, *tests]
    assert len(tests) > 0 or not origins
    assert all(before.end <= tests[0].moment for before in validating)


def test_five_origins_of_a_long_log():
    assert told(spaced_origins(days_before(400), CUTOFF, days=30, count=5)) == [
        (150, 120, "validation"),
        (120, 90, "validation"),
        (90, 60, "test"),
        (60, 30, "test"),
        (30, 0, "test"),
    ]


@pytest.mark.parametrize(("count", "validating"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 4)])
def test_two_of_five_validate_and_at_least_one_where_there_are_two(count, validating):
    found = spaced_origins(days_before(3000), CUTOFF, days=30, count=count)
    assert [each.role for each in found] == [Role.VALIDATION] * validating + [Role.TEST] * (count - validating)


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (89.9, [(45, 23, "validation"), (23, 0, "test")]),
        (90, [(60, 30, "validation"), (30, 0, "test")]),
        (119.9, [(60, 30, "validation"), (30, 0, "test")]),
        (120, [(90, 60, "validation"), (60, 30, "test"), (30, 0, "test")]),
    ],
)
def test_a_log_has_as_many_origins_as_it_has_room_for(days, expected):
    assert told(spaced_origins(days_before(days), CUTOFF, days=30, count=5)) == expected


def test_a_log_that_is_too_short_is_halved_and_the_halves_answers_shared():
    assert told(spaced_origins(days_before(40), CUTOFF, days=30, count=5)) == [
        (20, 10, "validation"),
        (10, 0, "test"),
    ]


def test_one_origin_of_a_short_log_tests():
    assert told(spaced_origins(days_before(40), CUTOFF, days=30, count=1)) == [(20, 0, "test")]


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (3, [(2, 1, "validation"), (1, 0, "test")]),
        (2.5, [(2, 1, "validation"), (1, 0, "test")]),
        (2, [(1, 0, "test")]),
        (1.5, [(1, 0, "test")]),
        (1, []),
        (0.5, []),
        (0, []),
        (-2, []),
    ],
)
def test_logs_of_some_days(days, expected):
    assert told(spaced_origins(days_before(days), CUTOFF, days=30, count=5)) == expected


@given(lengths, horizons, counts)
def test_spaced_origins_lie_inside_the_log_and_validate_before_they_test(length, days, count):
    first_event = CUTOFF - length
    found = spaced_origins(first_event, CUTOFF, days, count)
    assert_sound(found, first_event, CUTOFF)
    assert len(found) <= count
    assert all(each.end - each.moment <= days * DAY for each in found)
    assert all(one.end == other.moment for one, other in pairwise(found))
    assert not found or found[-1].end == CUTOFF


@given(lengths, horizons, counts)
def test_a_log_with_two_whole_days_after_its_first_has_an_origin_for_each_role(length, days, count):
    roles = {each.role for each in spaced_origins(CUTOFF - length, CUTOFF, days, count)}
    whole = (CUTOFF - midnight_after(CUTOFF - length)) // DAY
    if count > 1 and whole >= 2:
        assert roles == set(Role)
    elif whole >= 1:
        assert Role.TEST in roles
    else:
        assert roles == set()


@given(lengths, horizons, counts, st.integers(2, 5))
def test_each_spaced_origin_of_a_long_log_has_as_long_a_log_before_it(length, days, count, times):
    first_event = CUTOFF - length - times * days * DAY
    found = spaced_origins(first_event, CUTOFF, days, count)
    if len(found) != 2:  # two may be the halves of a shorter log
        assert all(each.moment - days * DAY >= first_event for each in found)
        assert all(each.end - each.moment == days * DAY for each in found)


def test_a_training_set_s_model_is_tested_from_the_first_midnight_that_it_does_not_know():
    known_until = days_before(20.5)
    assert told(origins_after(known_until, days_before(200), CUTOFF, days=7)) == [
        (27, 20, "validation"),
        (20, 13, "test"),
    ]
    assert told(origins_after(days_before(20), days_before(200), CUTOFF, days=7))[-1] == (20, 13, "test")


def test_the_answers_of_a_training_set_s_origin_end_with_the_log():
    assert told(origins_after(days_before(4), days_before(200), CUTOFF, days=7)) == [
        (11, 4, "validation"),
        (4, 0, "test"),
    ]


def test_validation_lies_half_way_into_a_log_that_is_too_short():
    assert told(origins_after(days_before(4), days_before(14), CUTOFF, days=30)) == [
        (9, 4, "validation"),
        (4, 0, "test"),
    ]


@pytest.mark.parametrize("first_event", [days_before(5), days_before(4.5), days_before(4)])
def test_there_is_no_validation_where_no_midnight_lies_between(first_event):
    assert told(origins_after(days_before(4), first_event, CUTOFF, days=30)) == [(4, 0, "test")]


@pytest.mark.parametrize("known_until", [CUTOFF, days_before(0.5), days_before(0.00001), CUTOFF + DAY])
def test_no_day_is_left_for_answers(known_until):
    assert origins_after(known_until, days_before(200), CUTOFF, days=7) == []


@given(lengths, st.floats(0, 1), horizons)
def test_origins_after_a_training_set_lie_inside_the_log(length, share, days):
    first_event = CUTOFF - length
    known_until = first_event + share * length
    found = origins_after(known_until, first_event, CUTOFF, days)
    if known_until == first_event:  # nobody learns from nothing: then the test origin may be the first event's moment
        return
    assert_sound(found, first_event, CUTOFF)
    assert len(found) <= 2
    assert all(each.end - each.moment <= days * DAY for each in found)
    assert bool(found) == (midnight_from(known_until) < CUTOFF)
    if found:
        assert timedelta() <= found[-1].moment - known_until < DAY


@pytest.mark.parametrize("origin", [days_before(200), days_before(201), CUTOFF, CUTOFF + 3 * DAY])
def test_an_origin_outside_the_log_is_refused(origin):
    with pytest.raises(JobError) as refused:
        given_origin(origin, days_before(200), CUTOFF, days=7)
    message = str(refused.value)
    assert message.startswith(f"origin {origin:%Y-%m-%dT%H:%M:%SZ}: expected a midnight")
    assert "1997-10-05T00:00:00Z" in message
    assert "1998-04-23T00:00:00Z" in message
    assert "choose another origin" in message


def test_a_given_origin_tests_and_the_one_before_it_validates():
    assert told(given_origin(days_before(30), days_before(200), CUTOFF, days=7)) == [
        (37, 30, "validation"),
        (30, 23, "test"),
    ]


@given(lengths, st.integers(0, 900), horizons)
def test_a_given_origin_is_refused_or_tested(length, before, days):
    first_event, origin = CUTOFF - length, CUTOFF - before * DAY
    if not first_event < origin < CUTOFF:
        with pytest.raises(JobError):
            given_origin(origin, first_event, CUTOFF, days)
        return
    found = given_origin(origin, first_event, CUTOFF, days)
    assert_sound(found, first_event, CUTOFF)
    assert found[-1] == Origin(origin, min(origin + days * DAY, CUTOFF), Role.TEST)


def test_the_first_midnight_at_or_after_a_moment():
    assert midnight_from(CUTOFF) == CUTOFF
    assert midnight_from(CUTOFF + timedelta(microseconds=1)) == CUTOFF + DAY
    assert midnight_from(CUTOFF - timedelta(microseconds=1)) == CUTOFF
    assert midnight_from(datetime.fromisoformat("1998-04-23T23:30:00-02:00")) == CUTOFF + 2 * DAY
