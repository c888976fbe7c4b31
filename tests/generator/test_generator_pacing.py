"""The schedule is a pure function of the request's index."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator.pacing import Pace


@pytest.mark.parametrize(
    ("rate", "duration", "batch", "requests_per_second", "total"),
    [
        (5000, 60, 10, 500, 30_000),
        (5000, 1, 1, 5000, 5000),
        (100, 0.5, 10, 10, 5),
        (100, 0.55, 10, 10, 6),  # a begun interval has its request
        (1, 1, 10, 0.1, 1),  # even the slowest run sends one
        (0.1, 30, 1, 0.1, 3),  # 0.1 * 30 is a hair above 3 in floating point
        (7, 3, 7, 1, 3),
    ],
)
def test_rate_duration_and_batch_make_the_number_of_requests(
    rate: float, duration: float, batch: int, requests_per_second: float, total: int
) -> None:
    pace = Pace.for_events(rate, duration, batch)
    assert pace.requests_per_second == pytest.approx(requests_per_second)
    assert pace.total == total


@pytest.mark.parametrize(
    ("elapsed", "due"),
    [
        (-1, 0),
        (0, 1),
        (0.0999, 1),
        (0.1, 2),
        (0.55, 6),
        (0.9, 10),
        (1, 10),
        (1e9, 10),
    ],
)
def test_requests_fall_due_one_interval_apart_from_the_start_on(elapsed: float, due: int) -> None:
    assert Pace(requests_per_second=10, total=10).due_by(elapsed) == due


def test_the_schedule_lasts_one_interval_beyond_the_last_request() -> None:
    pace = Pace(requests_per_second=10, total=10)
    assert pace.due_seconds(9) == pytest.approx(0.9)
    assert pace.window_seconds == 1


@given(
    st.floats(1e-3, 1e6),
    st.integers(1, 10**6),
    st.integers(0, 10**6),
    st.sampled_from([0.0, math.inf, -math.inf]),
)
def test_due_by_and_due_seconds_agree_to_the_last_bit(
    rate: float, total: int, index: int, towards: float
) -> None:
    pace = Pace(rate, total)
    index = min(index, total - 1)
    due = pace.due_seconds(index)
    elapsed = math.nextafter(due, towards) if towards else due
    count = pace.due_by(elapsed)
    assert (due <= elapsed) == (index < count)
    assert count == 0 or pace.due_seconds(count - 1) <= elapsed
    assert count == total or pace.due_seconds(count) > elapsed


@pytest.mark.parametrize(
    ("rate", "total"), [(0.0, 1), (-1.0, 1), (math.nan, 1), (math.inf, 1), (1.0, 0)]
)
def test_a_pace_without_a_schedule_is_refused(rate: float, total: int) -> None:
    with pytest.raises(ValueError, match=r"pace|request"):
        Pace(rate, total)
