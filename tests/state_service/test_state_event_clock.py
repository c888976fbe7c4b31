"""The clock of a replay: who moves it, who does not, and that nothing is lost by it."""

from collections.abc import Sequence

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from state_service import event_clock
from state_service.event_clock import PATIENCE_EVENTS, EventClock
from state_service.windows import ACCEPTED, LATE, WindowRules, Windows
from tests.state_service import event_clock_oracle
from tests.state_service.event_clock_oracle import NaiveClock

NOW = 1_800_000_000.0
THEN = 1_550_000_000.0  # what is replayed
WINDOW = 300.0


def _windows() -> Windows:
    return Windows(WindowRules(WINDOW, 60.0, 300.0, "event"))


def _ingest(windows: Windows, user: str, *timestamps: float) -> list[int]:
    values = np.array(timestamps)
    verdicts = windows.ingest([user] * len(values), values, values, NOW)
    found: list[int] = verdicts.tolist()
    return found


def _replay(windows: Windows, begin: int, end: int) -> None:
    """Replay seconds of the past, an event of each of three users in each."""
    for second in range(begin, end):
        for user in ("ann", "bob", "eve"):
            assert _ingest(windows, user, THEN + second) == [ACCEPTED], second


def test_a_row_stamped_now_moves_nobodys_window() -> None:
    windows = _windows()
    _replay(windows, 0, 400)
    assert _ingest(windows, "mallory", NOW) == [ACCEPTED]
    _replay(windows, 400, 800)
    assert windows.reference(NOW) == THEN + 799
    assert windows.summary("ann", NOW).count == 301
    assert windows.event_clock is not None
    assert windows.event_clock.waiting_seconds == NOW - (THEN + 799)


def test_a_user_whose_clock_is_wrong_gets_no_further_by_small_steps_or_many_rows() -> None:
    windows = _windows()
    _replay(windows, 0, 400)
    for second in range(400, 500):
        for row in range(20):
            _ingest(windows, "mallory", THEN + second + 10.0 * row * (second - 399))
        _replay(windows, second, second + 1)
        assert windows.reference(NOW) <= THEN + second + WINDOW / 2
    assert windows.summary("ann", NOW).count >= WINDOW / 2


def test_the_very_first_row_may_be_the_wrong_one() -> None:
    windows = _windows()
    assert _ingest(windows, "mallory", NOW) == [ACCEPTED]
    _replay(windows, 0, 400)
    assert windows.reference(NOW) == THEN + 399
    assert windows.summary("bob", NOW).count == 301


@pytest.mark.parametrize("users", [1, 3])
def test_a_real_gap_is_crossed_and_no_event_behind_it_is_lost(users: int) -> None:
    windows = _windows()
    _replay(windows, 0, 400)
    names = [f"user {number % users}" for number in range(PATIENCE_EVENTS + 100)]
    for number, name in enumerate(names):
        assert _ingest(windows, name, THEN + 1e6 + number / 10) == [ACCEPTED]
    assert windows.reference(NOW) == THEN + 1e6 + (len(names) - 1) / 10
    counts = [windows.summary(name, NOW).count for name in set(names)]
    assert sum(counts) == len(names)
    assert _ingest(windows, "ann", THEN + 400) == [LATE]


def test_a_user_alone_is_followed_at_once_and_survives_a_stray_row() -> None:
    windows = _windows()
    for second in range(500):
        _ingest(windows, "ann", THEN + 5 * second)
        if second == 100:
            _ingest(windows, "ann", NOW)
        assert windows.reference(NOW) == THEN + 5 * second
    assert windows.summary("ann", NOW).count == 61


def test_forgetting_whoever_moved_the_clock_moves_it_back() -> None:
    windows = _windows()
    _replay(windows, 0, 400)
    _ingest(windows, "mallory", *(NOW - 5000 + row for row in range(PATIENCE_EVENTS + 1)))
    assert _ingest(windows, "ann", THEN + 400) == [LATE]
    windows.forget("mallory")
    assert windows.reference(NOW) == THEN + 399
    _replay(windows, 400, 500)
    assert windows.summary("ann", NOW).count == 301


def test_what_lies_ahead_keeps_nothing_else_in_memory() -> None:
    windows = _windows()
    for second in range(2_000):
        for user in ("ann", "bob"):
            _ingest(windows, user, THEN + second)
        _ingest(windows, "mallory", NOW - 5_000 + second)
        if second % 10 == 0:
            windows.seal()
            windows.expire(NOW)
        while (work := windows.next_work()) is not None:
            windows.finish(work, work.run())
    windows.check()
    assert windows.reference(NOW) == THEN + 1_999
    assert windows.live_events <= 2_000 + 2 * 1.1 * (WINDOW + 300)


_EVENTS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(-30, 60), st.integers(1, 9)), max_size=60
)


@settings(max_examples=300, deadline=None)
@given(runs=_EVENTS, cuts=st.lists(st.integers(1, 40), min_size=1), jump=st.integers(0, 100))
def test_the_clock_is_the_oracles_however_the_events_are_cut(
    runs: Sequence[tuple[str, int, int]], cuts: Sequence[int], jump: int
) -> None:
    patience = pytest.MonkeyPatch()
    patience.setattr(event_clock, "PATIENCE_EVENTS", 7)
    patience.setattr(event_clock_oracle, "PATIENCE_EVENTS", 7)
    try:
        rows = [
            (user, THEN + offset + 3 * place + (jump if place > 20 else 0))
            for place, (user, offset, times) in enumerate(runs)
            for _ in range(times)
        ]
        clock, again, naive = EventClock(10.0), EventClock(10.0), NaiveClock(10.0)
        place, turn = 0, 0
        while place < len(rows):
            part = rows[place : place + cuts[turn % len(cuts)]]
            place, turn = place + len(part), turn + 1
            users, stamps = [user for user, _ in part], np.array([stamp for _, stamp in part])
            late = clock.late(users, stamps)
            taken = [naive.take(*row) for row in part]
            assert (~late).tolist() == taken if late is not None else all(taken)
            kept = [row for row, take in zip(part, taken, strict=True) if take]
            if kept:
                clock.advance([user for user, _ in kept], np.array([stamp for _, stamp in kept]))
            for user, stamp in kept:  # a restart may cut them otherwise
                again.advance([user], np.array([stamp]))
            naive.agree(clock)
            naive.agree(again)
    finally:
        patience.undo()
