"""When an offer is open."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perak.domain.offer import Hours

MONDAY, TUESDAY, SATURDAY, SUNDAY = 1, 2, 6, 7
NOON = 12 * 60


def test_hours_within_a_day_include_their_start_and_not_their_end() -> None:
    hours = Hours(start_minute=8 * 60, end_minute=NOON, weekdays=(MONDAY,))
    opened = [minute for minute in range(1440) if hours.open_at(weekday=MONDAY, minute=minute)]
    assert opened == list(range(8 * 60, NOON))
    assert not any(hours.open_at(weekday=TUESDAY, minute=minute) for minute in range(1440))


def test_a_night_belongs_to_the_day_on_which_it_begins() -> None:
    saturday_night = Hours(start_minute=22 * 60, end_minute=6 * 60, weekdays=(SATURDAY,))
    assert saturday_night.open_at(weekday=SATURDAY, minute=23 * 60)
    assert saturday_night.open_at(weekday=SUNDAY, minute=5 * 60)
    assert not saturday_night.open_at(weekday=SUNDAY, minute=6 * 60)
    assert not saturday_night.open_at(weekday=SUNDAY, minute=23 * 60)
    assert not saturday_night.open_at(weekday=SATURDAY, minute=5 * 60)


def test_the_night_from_sunday_to_monday_goes_round_the_week() -> None:
    sunday_night = Hours(start_minute=22 * 60, end_minute=6 * 60, weekdays=(SUNDAY,))
    assert sunday_night.open_at(weekday=MONDAY, minute=0)


@pytest.mark.parametrize("start", [0, NOON])
def test_hours_that_end_where_they_start_last_a_day(start: int) -> None:
    hours = Hours(start_minute=start, end_minute=start)
    assert all(
        hours.open_at(weekday=weekday, minute=minute) for weekday in range(1, 8) for minute in range(1440)
    )


@settings(max_examples=25)  # each looks at every minute of a week
@given(
    start=st.integers(0, 1439),
    end=st.integers(0, 1440),
    weekdays=st.sets(st.integers(1, 7)).map(lambda days: tuple(sorted(days))),
)
def test_a_week_is_open_for_as_long_as_its_hours_say(start: int, end: int, weekdays: tuple[int, ...]) -> None:
    hours = Hours(start_minute=start, end_minute=end, weekdays=weekdays)
    opened = sum(
        hours.open_at(weekday=weekday, minute=minute) for weekday in range(1, 8) for minute in range(1440)
    )
    length = end - start if end > start else end - start + 1440
    assert opened == length * len(weekdays)
