"""The window engine's rules, one by one."""

import random
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from state_service.errors import CapacityError, HistoryError
from state_service.windows import ACCEPTED, FUTURE, LATE, WindowRules, Windows

NOW = 1_000_000.0


def _windows(**rules: Any) -> Windows:
    defaults: dict[str, Any] = {
        "window_seconds": 10.0,
        "max_future_seconds": 4.0,
        "history_seconds": 3.0,
        "memtable_events": 4,
    }
    return Windows(WindowRules(**(defaults | rules)))


def _ingest(windows: Windows, *events: tuple[str, float, float], now: float = NOW) -> list[int]:
    """Take (user, timestamp, score) events; return their verdicts."""
    users, timestamps, scores = zip(*events, strict=True)
    verdicts = windows.ingest(
        users, np.array(timestamps, np.float64), np.array(scores, np.float64), now
    )
    windows.check()
    verdict_list: list[int] = verdicts.tolist()
    return verdict_list


def test_both_ends_of_the_window_are_inside() -> None:
    windows = _windows()
    before, after = np.nextafter(NOW - 10, 0), np.nextafter(NOW + 4, np.inf)
    events = [("u", t, 0.0) for t in (before, NOW - 10, NOW, NOW + 4, after)]
    assert _ingest(windows, *events) == [LATE, ACCEPTED, ACCEPTED, ACCEPTED, FUTURE]
    assert windows.summary("u", NOW).count == 3
    assert windows.summary("u", np.nextafter(NOW, np.inf)).count == 2
    assert windows.medians(["u"], NOW).counts.tolist() == [3]


def test_a_silent_users_window_empties_by_itself_under_the_wall_clock() -> None:
    windows = _windows()
    _ingest(windows, ("u", NOW, 0.5))
    assert windows.summary("u", NOW + 10).median == 0.5
    assert windows.summary("u", NOW + 10.5).median is None


def test_under_the_event_clock_time_is_what_the_events_say() -> None:
    windows = _windows(clock="event")
    # A replay of the distant past; the wall clock says a million.
    assert _ingest(windows, ("u", 100.0, 1.0), ("u", 105.5, 2.0)) == [ACCEPTED, ACCEPTED]
    assert windows.summary("u", NOW).count == 2
    assert _ingest(windows, ("v", 110.5, 3.0)) == [ACCEPTED]
    assert windows.summary("u", NOW).count == 1
    assert _ingest(windows, ("u", 100.25, 9.0)) == [LATE]


def test_one_clock_far_ahead_moves_nobodys_window() -> None:
    windows = _windows(clock="event")
    _ingest(windows, ("u", NOW, 1.0))
    assert _ingest(windows, ("v", NOW * 1000, 2.0), ("u", NOW, 3.0)) == [FUTURE, ACCEPTED]
    assert windows.summary("u", NOW).count == 2


def test_nothing_accepted_yet_is_an_empty_window_under_the_event_clock() -> None:
    windows = _windows(clock="event")
    assert windows.summary("u", NOW).count == 0
    assert windows.summary("u", NOW, window_seconds=5, at=NOW).count == 0
    assert windows.medians(["u"], NOW).counts.tolist() == [0]
    windows.expire(NOW)
    windows.seal()
    assert windows.segments == ()


def test_a_question_about_the_past_is_exact_or_refused() -> None:
    windows = _windows()
    _ingest(windows, ("u", NOW - 9, 1.0), ("u", NOW, 2.0))
    assert windows.summary("u", NOW + 3, at=NOW).count == 2
    assert windows.summary("u", NOW + 13, window_seconds=1, at=NOW + 1).count == 1
    with pytest.raises(HistoryError, match="history_seconds"):
        windows.summary("u", NOW + 3.5, at=NOW)
    with pytest.raises(HistoryError):
        windows.medians(["u"], NOW + 3.5, at=NOW)


def test_an_answer_about_a_moment_does_not_count_what_was_dated_later() -> None:
    windows = _windows(window_seconds=30.0, max_future_seconds=60.0, history_seconds=300.0)
    for second in range(90):
        _ingest(windows, ("u", NOW + second, float(second)), now=NOW + second)
        if second == 40:
            live = windows.summary("u", NOW + 40)
            assert (live.count, live.median, live.max) == (31, 25.0, 40.0)
    later = windows.summary("u", NOW + 89, at=NOW + 40)
    assert (later.count, later.median, later.max) == (31, 25.0, 40.0)
    assert windows.medians(["u"], NOW + 89, at=NOW + 40).counts.tolist() == [31]


_PAST = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(-20, 0), st.floats(-1, 1)), max_size=12
)
_NEWER = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(1, 8), st.floats(-1, 1)), max_size=12
)


@settings(deadline=None)
@given(past=_PAST, newer=_NEWER, at=st.integers(-8, 0), clock=st.sampled_from(["wall", "event"]))
def test_an_answer_about_a_past_moment_never_changes_whatever_newer_comes(
    past: list[tuple[str, int, float]],
    newer: list[tuple[str, int, float]],
    at: int,
    clock: str,
) -> None:
    windows = _windows(clock=clock, history_seconds=60.0)
    for user, offset, score in past:
        _ingest(windows, (user, NOW + offset, score))
    moment = NOW + at
    then = [windows.summary(user, NOW, at=moment, quantiles=(0.1, 0.9)) for user in "ab"]
    for user, offset, score in newer:
        _ingest(windows, (user, moment + offset, score), now=NOW + offset)
        windows.seal()
        windows.expire(NOW + offset)
    assert [windows.summary(u, NOW + 8, at=moment, quantiles=(0.1, 0.9)) for u in "ab"] == then


def test_nobody_asked_for_is_nobody_answered_for() -> None:
    windows = _windows()
    _ingest(windows, ("u", NOW, 1.0))
    assert [len(column) for column in windows.medians([], NOW)] == [0, 0, 0]
    windows.seal()
    assert [len(column) for column in windows.medians([], NOW)] == [0, 0, 0]


def test_two_equal_events_are_two_events() -> None:
    windows = _windows()
    _ingest(windows, ("u", NOW, 1.0), ("u", NOW, 1.0), ("u", NOW, 4.0))
    assert windows.summary("u", NOW).count == 3
    assert windows.summary("u", NOW).median == 1.0


@pytest.mark.parametrize("clock", ["wall", "event"])
def test_the_order_of_arrival_makes_no_difference(clock: str) -> None:
    dice = random.Random(3)
    names = ["a", "b", "c"]
    events = [(dice.choice(names), NOW - dice.randrange(9), dice.random()) for _ in range(60)]
    answers = set()
    for _ in range(5):
        windows = _windows(clock=clock)
        dice.shuffle(events)
        for start in range(0, len(events), 7):
            _ingest(windows, *events[start : start + 7])
        summaries = [windows.summary(name, NOW) for name in names]
        answers.add(tuple((summary.median, summary.count) for summary in summaries))
    assert len(answers) == 1


def test_a_full_memory_refuses_a_request_whole_and_has_room_again_later() -> None:
    windows = _windows(max_live_events=5)
    _ingest(windows, *(("u", NOW, 1.0),) * 4)
    with pytest.raises(CapacityError, match="max_live_events"):
        _ingest(windows, ("u", NOW, 1.0), ("v", NOW, 2.0))
    windows.check()
    assert (windows.live_events, windows.active_users) == (4, 1)
    # What is not kept needs no room.
    assert _ingest(windows, ("w", NOW - 99, 1.0), ("u", NOW, 1.0)) == [LATE, ACCEPTED]
    windows.seal()
    windows.expire(NOW + 99)
    assert _ingest(windows, *(("v", NOW + 99, 1.0),) * 5, now=NOW + 99) == [ACCEPTED] * 5


def test_too_many_users_are_refused_whole() -> None:
    windows = _windows(max_active_users=2)
    _ingest(windows, ("a", NOW, 1.0))
    with pytest.raises(CapacityError, match="max_active_users"):
        _ingest(windows, ("b", NOW, 1.0), ("c", NOW, 1.0))
    windows.check()
    assert (windows.live_events, windows.active_users) == (1, 1)
    assert _ingest(windows, ("a", NOW, 1.0), ("b", NOW, 1.0)) == [ACCEPTED, ACCEPTED]


def test_a_refused_request_does_not_move_the_event_clock() -> None:
    windows = _windows(clock="event", max_live_events=1)
    _ingest(windows, ("u", NOW - 20, 1.0))
    with pytest.raises(CapacityError):
        _ingest(windows, ("u", NOW, 1.0))
    assert windows.newest_timestamp == NOW - 20
    assert windows.summary("u", NOW).count == 1


def test_memory_follows_the_users_who_are_active_and_not_those_who_were() -> None:
    windows = _windows(memtable_events=64)
    for moment in range(2000):
        now = NOW + moment
        _ingest_only(windows, f"user {moment}", now)
        if moment % 5 == 0:
            windows.seal()
            windows.expire(now)
            windows.check()
    assert windows.active_users < 30
    assert windows.live_events < 30
    # A slot is 4 bytes of a small integer: had slots not been recycled, one would be near 2000.
    assert max(int(segment.slots.max()) for segment in windows.segments) < 40


def _ingest_only(windows: Windows, user: str, now: float) -> None:
    windows.ingest([user], np.array([now]), np.array([1.0]), now)


def test_a_recycled_slot_does_not_answer_for_its_former_user() -> None:
    windows = _windows()
    _ingest(windows, ("old", NOW, 1.0))
    windows.seal()
    windows.expire(NOW + 99)
    _ingest(windows, ("new", NOW + 99, 2.0), now=NOW + 99)
    assert windows.summary("old", NOW + 99).count == 0
    assert windows.summary("new", NOW + 99).median == 2.0
    assert windows.medians(["old", "new"], NOW + 99).counts.tolist() == [0, 1]


def test_a_segment_stays_while_its_newest_event_can_be_asked_for() -> None:
    windows = _windows()
    _ingest(windows, ("u", NOW - 10, 1.0), ("u", NOW, 2.0))
    windows.seal()
    windows.expire(NOW + 13)
    assert windows.live_events == 2
    windows.expire(np.nextafter(NOW + 13, np.inf))
    assert windows.live_events == 0
