"""Where in a log lists are learned, chosen and judged: always inside it, in this order, and none where no room is."""

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
    choosing_end,
    given_origin,
    midnight_after,
    midnight_from,
    origins_after,
    spaced_origins,
    validation_origins,
    vectors_moment,
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
trainings = st.one_of(st.integers(0, 5), st.integers(0, 52))


def days_before(days: float) -> datetime:
    return CUTOFF - timedelta(days=days)


def told(origins: list[Origin]) -> list[tuple[float, float, str]]:
    """Return of each origin how many days before the cutoff it lies and its answers end, and its role."""
    return [((CUTOFF - each.moment) / DAY, (CUTOFF - each.end) / DAY, each.role.value) for each in origins]


def of_role(origins: list[Origin], role: Role) -> list[Origin]:
    return [each for each in origins if each.role is role]


def judging(origins: list[Origin]) -> list[Origin]:
    """Return the origins that a log has with or without some to train on."""
    return [each for each in origins if each.role is not Role.TRAIN]


def assert_sound(origins: list[Origin], first_event: datetime, cutoff: datetime, days: int, training: int) -> None:
    """Hold of every list of origins, whoever asked for it."""
    for each in origins:
        assert each.moment.time() == time()
        assert each.moment.tzinfo is UTC
        assert first_event < each.moment < each.end <= cutoff
        assert each.end - each.moment <= days * DAY
    assert [each.moment for each in origins] == sorted({each.moment for each in origins})
    assert origins == [one for role in (Role.TRAIN, Role.VALIDATION, Role.TEST) for one in of_role(origins, role)]
    assert of_role(origins, Role.TEST) or not origins
    judged = judging(origins)
    assert all(before.end <= after.moment for before, after in pairwise(judged))  # no answer is known to a later one
    assert all(each.end <= judged[0].moment for each in of_role(origins, Role.TRAIN))
    assert_trains_soundly(origins, first_event, days, training)


def assert_trains_soundly(origins: list[Origin], first_event: datetime, days: int, training: int) -> None:
    """Hold of origins to train on: as many as are wanted where each can have a day, alike, and up to validation."""
    found, validating = of_role(origins, Role.TRAIN), of_role(origins, Role.VALIDATION)
    if not validating:
        assert found == []
        return
    room = (validating[0].moment - midnight_after(first_event)) // DAY
    assert bool(found) == (training > 0 and room >= 2)
    assert len(found) <= training
    if not found:
        return
    (length,) = {each.end - each.moment for each in found}
    assert length == max(1, min(days, room // 3)) * DAY
    assert found[-1].end == validating[0].moment
    step = max(1, length // DAY // 3) * DAY
    assert all(other.moment - one.moment == step for one, other in pairwise(found))
    assert found[0].moment - midnight_after(first_event) >= length  # as much is known before the first as it asks for
    if len(found) < training:  # one more would not have that
        assert found[0].moment - step - midnight_after(first_event) < length


def test_five_origins_of_a_long_log_and_two_to_train_on():
    assert told(spaced_origins(days_before(400), CUTOFF, days=30, count=5, training=2)) == [
        (190, 160, "train"),
        (180, 150, "train"),
        (150, 120, "validation"),
        (120, 90, "validation"),
        (90, 60, "test"),
        (60, 30, "test"),
        (30, 0, "test"),
    ]


@pytest.mark.parametrize(("count", "validating"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 4)])
def test_two_of_five_validate_and_at_least_one_where_there_are_two(count, validating):
    found = spaced_origins(days_before(3000), CUTOFF, days=30, count=count, training=0)
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
    assert told(spaced_origins(days_before(days), CUTOFF, days=30, count=5, training=0)) == expected


def test_a_log_that_is_too_short_is_halved_and_the_halves_answers_shared():
    assert told(spaced_origins(days_before(40), CUTOFF, days=30, count=5, training=0)) == [
        (20, 10, "validation"),
        (10, 0, "test"),
    ]


def test_one_origin_of_a_short_log_tests():
    assert told(spaced_origins(days_before(40), CUTOFF, days=30, count=1, training=0)) == [(20, 0, "test")]


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
    assert told(spaced_origins(days_before(days), CUTOFF, days=30, count=5, training=0)) == expected


@given(lengths, horizons, counts, trainings)
def test_spaced_origins_lie_inside_the_log_and_validate_before_they_test(length, days, count, training):
    first_event = CUTOFF - length
    found = spaced_origins(first_event, CUTOFF, days, count, training)
    assert_sound(found, first_event, CUTOFF, days, training)
    assert len(judging(found)) <= count
    assert all(one.end == other.moment for one, other in pairwise(judging(found)))
    assert not found or found[-1].end == CUTOFF


@given(lengths, horizons, counts, trainings)
def test_what_is_judged_does_not_depend_on_what_is_trained_on(length, days, count, training):
    first_event = CUTOFF - length
    found = spaced_origins(first_event, CUTOFF, days, count, training)
    assert judging(found) == spaced_origins(first_event, CUTOFF, days, count, training=0)


@given(lengths, horizons, counts)
def test_a_log_with_two_whole_days_after_its_first_has_an_origin_for_each_role(length, days, count):
    roles = {each.role for each in spaced_origins(CUTOFF - length, CUTOFF, days, count, training=0)}
    whole = (CUTOFF - midnight_after(CUTOFF - length)) // DAY
    if count > 1 and whole >= 2:
        assert roles == {Role.VALIDATION, Role.TEST}
    elif whole >= 1:
        assert Role.TEST in roles
    else:
        assert roles == set()


@given(lengths, horizons, counts, st.integers(2, 5))
def test_each_spaced_origin_of_a_long_log_has_as_long_a_log_before_it(length, days, count, times):
    first_event = CUTOFF - length - times * days * DAY
    found = spaced_origins(first_event, CUTOFF, days, count, training=0)
    if len(found) != 2:  # two may be the halves of a shorter log
        assert all(each.moment - days * DAY >= first_event for each in found)
        assert all(each.end - each.moment == days * DAY for each in found)


@given(lengths, horizons, st.floats(0, 1))
def test_a_fit_chooses_its_variants_on_answers_before_its_own_moment(length, days, share):
    first_event, cutoff = CUTOFF - length, midnight_from(CUTOFF - share * length)
    found = validation_origins(first_event, CUTOFF, cutoff, days)
    assert {each.role for each in found} <= {Role.VALIDATION}
    assert len(found) <= 2
    assert all(each.end <= cutoff for each in found)


def after(
    train_end: datetime, valid_end: datetime, first_event: datetime, days: int, training: int = 0
) -> list[tuple[float, float, str]]:
    return told(origins_after(train_end, valid_end, first_event, CUTOFF, days, training))


def test_a_model_is_chosen_and_tested_from_the_first_midnights_that_it_does_not_know():
    assert after(days_before(40.5), days_before(20.5), days_before(200), days=7) == [
        (40, 33, "validation"),
        (20, 13, "test"),
    ]
    assert after(days_before(40), days_before(20), days_before(200), days=7) == [
        (40, 33, "validation"),
        (20, 13, "test"),
    ]


def test_answers_end_at_the_next_origin_and_with_the_log():
    assert after(days_before(6), days_before(4), days_before(200), days=7) == [(6, 4, "validation"), (4, 0, "test")]


def test_models_train_on_what_lies_before_the_validation_origin():
    assert after(days_before(40.5), days_before(20.5), days_before(200), days=30, training=3) == [
        (90, 60, "train"),
        (80, 50, "train"),
        (70, 40, "train"),
        (40, 20, "validation"),
        (20, 0, "test"),
    ]


@pytest.mark.parametrize(
    ("log_days", "expected"),
    [
        (90, [(60, 30), (50, 20), (40, 10), (30, 0)]),  # room for all, and for as long a time before
        (89, [(56, 27), (47, 18), (38, 9), (29, 0)]),
        (80, [(50, 24), (42, 16), (34, 8), (26, 0)]),
        (9, [(6, 3), (5, 2), (4, 1), (3, 0)]),
        (5, [(4, 3), (3, 2), (2, 1), (1, 0)]),
        (4, [(3, 2), (2, 1), (1, 0)]),  # a day is the least
        (2, [(1, 0)]),
        (1, []),
        (0, []),
    ],
)
def test_origins_to_train_on_are_shorter_in_a_log_that_is_short(log_days, expected):
    validation = CUTOFF - 10 * DAY
    first_event = validation - log_days * DAY - timedelta(hours=1)
    found = origins_after(validation, CUTOFF - 5 * DAY, first_event, CUTOFF, days=30, training=4)
    spans = [((validation - each.moment) / DAY, (validation - each.end) / DAY) for each in of_role(found, Role.TRAIN)]
    assert spans == expected
    assert len(judging(found)) == (2 if validation > first_event else 1)


@given(lengths, horizons, st.integers(1, 52))
def test_fits_of_a_span_share_what_chooses_their_variants_and_none_knows_its_own_moment(length, days, training):
    found = spaced_origins(CUTOFF - length, CUTOFF, days, 5, training)
    ends = [choosing_end(each, found) for each in found]
    for each, end in zip(found, ends, strict=True):
        if each.role is Role.TRAIN:
            assert timedelta() <= each.moment - end < each.end - each.moment
        else:
            assert end == each.moment
    trains = of_role(found, Role.TRAIN)
    if trains:
        span = trains[0].end - trains[0].moment
        assert len({choosing_end(each, found) for each in trains}) <= -((trains[0].moment - trains[-1].end) // span)


@given(lengths, horizons, st.integers(1, 52))
def test_origins_to_train_on_share_the_vectors_of_the_first_and_all_others_have_their_own(length, days, training):
    found = spaced_origins(CUTOFF - length, CUTOFF, days, 5, training)
    moments = {each.moment: vectors_moment(each, found) for each in found}
    assert all(fitted <= moment for moment, fitted in moments.items()), "no vectors know what comes after"
    assert all(moments[each.moment] == each.moment for each in judging(found))
    assert {moments[each.moment] for each in of_role(found, Role.TRAIN)} == {
        each.moment for each in of_role(found, Role.TRAIN)[:1]
    }


@pytest.mark.parametrize("train_end", [days_before(4), days_before(4.5), days_before(4.99)])
def test_nothing_is_validated_or_trained_on_where_no_midnight_lies_between_the_ends(train_end):
    assert after(train_end, days_before(4), days_before(200), days=30, training=4) == [(4, 0, "test")]


def test_nothing_is_validated_where_nothing_is_known():
    assert after(days_before(9), days_before(4), days_before(9), days=30, training=4) == [(4, 0, "test")]


@pytest.mark.parametrize("valid_end", [CUTOFF, days_before(0.5), days_before(0.00001), CUTOFF + DAY])
def test_no_day_is_left_for_answers(valid_end):
    assert after(days_before(100), valid_end, days_before(200), days=7, training=4) == []


@given(lengths, st.floats(0, 1), st.floats(0, 1), horizons, trainings)
def test_origins_after_a_training_set_know_less_than_a_day_more_than_its_model(length, fitted, chosen, days, training):
    first_event = CUTOFF - length
    train_end, valid_end = (first_event + share * length for share in sorted((fitted, chosen)))
    found = origins_after(train_end, valid_end, first_event, CUTOFF, days, training)
    if valid_end == first_event:  # nobody learns from nothing: then the test origin may be the first event's moment
        return
    assert_sound(found, first_event, CUTOFF, days, training)
    assert bool(found) == (midnight_from(valid_end) < CUTOFF)
    tests, validations = of_role(found, Role.TEST), of_role(found, Role.VALIDATION)
    assert all(timedelta() <= each.moment - valid_end < DAY for each in tests)
    assert all(timedelta() <= each.moment - train_end < DAY for each in validations)
    assert len(tests) <= 1
    between = midnight_from(train_end) < midnight_from(valid_end) < CUTOFF
    assert len(validations) == (between and midnight_from(train_end) > first_event)


@pytest.mark.parametrize("origin", [days_before(200), days_before(201), CUTOFF, CUTOFF + 3 * DAY])
def test_an_origin_outside_the_log_is_refused(origin):
    with pytest.raises(JobError) as refused:
        given_origin(origin, days_before(200), CUTOFF, days=7, training=0)
    message = str(refused.value)
    assert message.startswith(f"origin {origin:%Y-%m-%dT%H:%M:%SZ}: expected a midnight")
    assert "1997-10-05T00:00:00Z" in message
    assert "1998-04-23T00:00:00Z" in message
    assert "choose another origin" in message


def test_a_given_origin_tests_and_the_one_before_it_validates():
    assert told(given_origin(days_before(30), days_before(200), CUTOFF, days=7, training=0)) == [
        (37, 30, "validation"),
        (30, 23, "test"),
    ]


def test_validation_lies_half_way_into_a_log_that_is_too_short_before_a_given_origin():
    assert told(given_origin(days_before(4), days_before(14), CUTOFF, days=30, training=2)) == [
        (11, 10, "train"),
        (10, 9, "train"),
        (9, 4, "validation"),
        (4, 0, "test"),
    ]


@pytest.mark.parametrize("first_event", [days_before(5), days_before(4.5)])
def test_there_is_no_validation_where_no_midnight_lies_between(first_event):
    assert told(given_origin(days_before(4), first_event, CUTOFF, days=30, training=4)) == [(4, 0, "test")]


@given(lengths, st.integers(0, 900), horizons, trainings)
def test_a_given_origin_is_refused_or_tested(length, before, days, training):
    first_event, origin = CUTOFF - length, CUTOFF - before * DAY
    if not first_event < origin < CUTOFF:
        with pytest.raises(JobError):
            given_origin(origin, first_event, CUTOFF, days, training)
        return
    found = given_origin(origin, first_event, CUTOFF, days, training)
    assert_sound(found, first_event, CUTOFF, days, training)
    assert found[-1] == Origin(origin, min(origin + days * DAY, CUTOFF), Role.TEST)
    assert len(judging(found)) <= 2


def test_the_first_midnight_at_or_after_a_moment():
    assert midnight_from(CUTOFF) == CUTOFF
    assert midnight_from(CUTOFF + timedelta(microseconds=1)) == CUTOFF + DAY
    assert midnight_from(CUTOFF - timedelta(microseconds=1)) == CUTOFF
    assert midnight_from(datetime.fromisoformat("1998-04-23T23:30:00-02:00")) == CUTOFF + 2 * DAY
