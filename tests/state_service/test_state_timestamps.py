"""Timestamps in half the room come back to the last bit."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from state_service.timestamps import Timestamps

TODAY = 1_795_417_200.0


@given(st.lists(st.floats(-1e15, 1e15) | st.floats(TODAY, TODAY + 900), min_size=1, max_size=30))
def test_any_timestamps_come_back_to_the_last_bit(times: list[float]) -> None:
    packed = Timestamps.pack(np.array(times))
    assert packed.decoded().tolist() == times
    assert packed.edges() == (min(times), max(times))
    assert packed.decoded(slice(1, None)).tolist() == times[1:]
    assert packed.newest(slice(None)) == max(times)
    backwards = np.arange(len(times))[::-1]
    assert packed.take(backwards).decoded().tolist() == times[::-1]


@given(st.lists(st.floats(TODAY, TODAY + 1023), min_size=1, max_size=30))
def test_todays_take_four_bytes(times: list[float]) -> None:
    assert Timestamps.pack(np.array(times)).column.itemsize == 4


@pytest.mark.parametrize(
    "times",
    [
        [TODAY, TODAY + 1024],  # too far apart
        [0.0, 2.0**-23],  # too close together
        [-1.7e308, 1.7e308],  # further apart than float64
    ],
)
def test_what_ticks_cannot_hold_is_kept_as_it_is(times: list[float]) -> None:
    packed = Timestamps.pack(np.array(times))
    assert packed.column.itemsize == 8
    assert packed.decoded().tolist() == times


def test_the_furthest_tick_fits() -> None:
    times = [TODAY, TODAY + 1024 - 2.0**-22]
    packed = Timestamps.pack(np.array(times))
    assert packed.column.itemsize == 4
    assert packed.decoded().tolist() == times
