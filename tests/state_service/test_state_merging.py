"""Which segments are merged, and that a merge loses nothing."""

import numpy as np

from state_service.merging import Work, choose
from state_service.segment import Segment

CELL = 10.0


def _segment(number: int, newest: float, events: int = 10) -> Segment:
    slots = np.arange(events, dtype=np.int32) % 3
    times = np.full(events, newest) - np.arange(events)
    return Segment.build(number, slots, times.astype(np.float64), np.cos(np.arange(events)))


def _numbers(segments: tuple[Segment, ...]) -> list[int]:
    return sorted(segment.number for segment in segments)


def test_segments_of_a_past_cell_become_one() -> None:
    segments = [_segment(1, 101.0), _segment(2, 109.0), _segment(3, 111.0)]
    assert choose(segments, 109.0, CELL) == ()
    assert _numbers(choose(segments, 111.0, CELL)) == [1, 2]


def test_segments_of_the_present_cell_wait_until_they_are_eight() -> None:
    segments = [_segment(number, 100.0 + number) for number in range(8)]
    assert choose(segments[:7], 107.0, CELL) == ()
    assert _numbers(choose(segments, 107.0, CELL)) == [*range(8)]


def test_a_large_segment_is_not_written_again_for_a_few_late_events() -> None:
    large, late = _segment(1, 100.0, 1000), _segment(2, 101.0, 10)
    assert choose([large, late], 200.0, CELL) == ()
    assert _numbers(choose([large, late, _segment(3, 102.0, 10)], 200.0, CELL)) == [2, 3]
    assert _numbers(choose([large, _segment(4, 100.0, 200)], 200.0, CELL)) == [1, 4]


def test_nothing_is_merged_beyond_the_bound_of_one_piece() -> None:
    segments = [_segment(number, 100.0, 200_000) for number in range(5)]
    chosen = choose(segments, 200.0, CELL)
    assert len(chosen) == 2
    assert sum(map(len, chosen)) <= 1 << 19


def test_a_merge_loses_nothing() -> None:
    parts = (_segment(1, 100.0), _segment(2, 5000.0, 7), _segment(3, 2.0**-30, 1))
    result = Work(9, parts).run()
    assert result is not None
    result.check()
    assert result.number == 9
    before = sorted(
        event
        for part in parts
        for event in zip(*(column.tolist() for column in part.columns()), strict=True)
    )
    assert sorted(zip(*(c.tolist() for c in result.columns()), strict=True)) == before
