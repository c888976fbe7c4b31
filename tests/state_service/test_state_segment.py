"""Segments: both layouts of runs, and runs taken over as they are."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from state_service.segment import Segment, require_sorted_runs

few_slots = st.integers(0, 9)
any_slots = st.one_of(few_slots, st.sampled_from([70_000, 2**31 - 1]))


def _segment(slots: list[int]) -> Segment:
    count = len(slots)
    places = np.arange(count, dtype=np.float64)
    return Segment.build(7, np.array(slots, np.int32), 1000.0 + places, count - places)


@given(st.lists(any_slots, min_size=1, max_size=40), st.lists(any_slots | st.just(-1), max_size=9))
def test_every_user_is_found_with_all_events_and_nobody_else(
    slots: list[int], asked: list[int]
) -> None:
    segment = _segment(slots)
    segment.check()
    assert segment.slots.tolist() == sorted(set(slots))
    assert dict(zip(segment.slots.tolist(), segment.counts.tolist(), strict=True)) == {
        slot: slots.count(slot) for slot in slots
    }
    asked = sorted(set(asked))
    owners, places = segment.gather(np.array(asked, np.int32))
    for index, slot in enumerate(asked):
        times = [1000.0 + place for place, owner in enumerate(slots) if owner == slot]
        if slot >= 0:
            begin, end = segment.runs.find(slot)
            assert sorted(segment.timestamps[begin:end].tolist()) == times
        assert sorted(segment.timestamps[places[owners == index]].tolist()) == times


def test_offsets_follow_the_users_there_are_and_not_the_slots() -> None:
    everyone, few = _segment([*range(1000)] * 2), _segment([0, 1_000_000])
    assert everyone.runs.nbytes == 4 * 1001
    assert few.runs.nbytes == 4 * (2 + 3)


@given(st.lists(any_slots, min_size=1, max_size=30), any_slots)
def test_a_segment_without_a_user_holds_all_others(slots: list[int], leaver: int) -> None:
    rest = _segment(slots).without(np.array([leaver], np.int32), 8)
    kept = [slot for slot in slots if slot != leaver]
    if not kept:
        assert rest is None
        return
    assert rest is not None
    rest.check()
    assert rest.number == 8
    assert np.repeat(rest.slots, rest.counts).tolist() == sorted(kept)


def test_sorted_runs_are_taken_over_in_any_order_of_users() -> None:
    counts = np.array([2, 1, 3])
    times = np.array([5.0, 4.0, 9.0, 1.0, 2.0, 3.0])
    scores = np.array([1.0, 1.0, -7.0, 0.0, 0.5, 1e300])
    slots = np.array([4, 9, 0], np.int32)
    segment = Segment.of_sorted_runs(3, slots, counts, times, scores)
    segment.check()
    assert segment.slots.tolist() == [0, 4, 9]
    assert segment.counts.tolist() == [3, 2, 1]
    assert segment.scores.tolist() == [0.0, 0.5, 1e300, 1.0, 1.0, -7.0]
    assert segment.timestamps.tolist() == [1.0, 2.0, 3.0, 5.0, 4.0, 9.0]


@pytest.mark.parametrize(
    ("user_ids", "counts", "times", "scores"),
    [
        ([], [], [], []),
        (["a"], [2], [1.0], [1.0]),
        (["a"], [2], [1.0], [1.0, 2.0]),
        (["a", "b"], [1], [1.0], [1.0]),
        (["a", "b"], [1, 0], [1.0], [1.0]),
        (["a", "b"], [2, -1], [1.0], [1.0]),
        (["a", "a"], [1, 1], [1.0, 2.0], [1.0, 2.0]),
        (["a"], [2], [1.0, 2.0], [2.0, 1.0]),
        (["a"], [1], [1.0], [float("nan")]),
        (["a"], [1], [float("inf")], [1.0]),
    ],
)
def test_what_is_not_one_ascending_run_a_user_is_refused(
    user_ids: list[str], counts: list[int], times: list[float], scores: list[float]
) -> None:
    with pytest.raises(ValueError, match=r"columns|run|ascend"):
        require_sorted_runs(user_ids, np.array(counts, np.int64), np.array(times), np.array(scores))
