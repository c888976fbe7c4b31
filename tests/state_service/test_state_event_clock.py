"""The clock of a replay: who moves it, who does not, and that nothing is lost by it."""

from collections.abc import Sequence

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from state_service import event_clock
from state_service.errors import HistoryError
from state_service.event_clock import LONE_PATIENCE_EVENTS, PATIENCE_EVENTS, EventClock
from state_service.windows import ACCEPTED, LATE, WindowRules, Windows
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


@pytest.mark.parametrize("rows", [10_000, PATIENCE_EVENTS - 1, 3 * PATIENCE_EVENTS])
def test_a_request_of_one_users_wrong_rows_ends_no_replay(rows: int) -> None:
    windows = _windows()
    _replay(windows, 0, 400)
    _ingest(windows, "mallory", *(NOW - 5_000 - row % 7 for row in range(rows)))
    if rows < PATIENCE_EVENTS:
        assert windows.reference(NOW) == THEN + 399
    windows.seal()
    windows.expire(NOW)
    _replay(windows, 400, 401)  # the first event of anybody else is enough
    assert windows.reference(NOW) == THEN + 400
    assert windows.summary("ann", NOW).count == 301
    assert windows.summary("ann", NOW, at=THEN + 100).count == 101


def test_honest_rows_in_a_row_earn_no_right_to_run_ahead() -> None:
    windows = _windows()
    _replay(windows, 0, 400)
    _ingest(windows, "mallory", *[THEN + 399.0] * 5_000)
    _ingest(windows, "mallory", *(THEN + 399 + 300.0 * row for row in range(1, 11)))
    assert windows.reference(NOW) <= THEN + 399 + WINDOW / 2
    _replay(windows, 400, 700)


def test_a_gap_is_crossed_by_the_second_user_behind_it() -> None:
    windows = _windows()
    _replay(windows, 0, 400)
    names = [f"user {number % 3}" for number in range(1_100)]
    for number, name in enumerate(names):
        assert _ingest(windows, name, THEN + 1e6 + number / 10) == [ACCEPTED]
        assert (windows.reference(NOW) > THEN + 399) == (number > 0)
    assert windows.reference(NOW) == THEN + 1e6 + (len(names) - 1) / 10
    assert sum(windows.summary(name, NOW).count for name in set(names)) == len(names)
    assert _ingest(windows, "ann", THEN + 400) == [LATE]


def _cross_alone(windows: Windows) -> float:
    """Send what one user has behind a gap; return its newest timestamp."""
    _replay(windows, 0, 400)
    begin = THEN + 1e6
    stamps = [begin + number / 1_000 for number in range(PATIENCE_EVENTS)]
    assert set(_ingest(windows, "zoe", *stamps)) == {ACCEPTED}
    assert windows.reference(NOW) == stamps[-1]
    assert windows.summary("zoe", NOW).count == PATIENCE_EVENTS
    return stamps[-1]


def test_a_gap_with_one_user_behind_it_is_crossed_and_its_memory_stays_bounded() -> None:
    windows = _windows()
    end = _cross_alone(windows)
    for second in range(1, 4_000):
        assert _ingest(windows, "zoe", end + second) == [ACCEPTED]
        if second % 10 == 0:
            windows.seal()
            windows.expire(NOW)
        while (work := windows.next_work()) is not None:
            windows.finish(work, work.run())
    windows.check()
    assert windows.reference(NOW) == end + 3_999
    assert windows.summary("zoe", NOW).count == 301
    assert windows.live_events <= 1_200 + 1.1 * (WINDOW + 300)
    assert _ingest(windows, "zoe", end + 3_999 - 301) == [LATE]
    # Somebody else speaks where everybody was: nothing of theirs has gone.
    _replay(windows, 400, 401)
    assert windows.reference(NOW) == THEN + 400
    assert windows.summary("ann", NOW, at=THEN + 300).count == 301
    with pytest.raises(HistoryError, match="dropped"):
        windows.summary("zoe", NOW, at=end + 1_000)
    with pytest.raises(HistoryError, match="dropped"):
        windows.between_question("zoe", NOW, THEN + 200, None)
    assert windows.between_question("ann", NOW, THEN + 200, None).answer().count == 201


def test_the_second_user_behind_it_makes_a_crossed_gap_final() -> None:
    windows = _windows()
    end = _cross_alone(windows)
    windows.seal()
    assert _ingest(windows, "yan", end) == [ACCEPTED]
    assert _ingest(windows, "ann", THEN + 400) == [LATE]
    windows.seal()
    windows.expire(NOW)
    assert windows.live_events == PATIENCE_EVENTS + 1


def test_the_only_user_there_is_crosses_a_gap_sooner() -> None:
    windows = _windows()
    _ingest(windows, "ann", *(THEN + second for second in range(400)))
    _ingest(windows, "ann", *(THEN + 1e6 + row / 10 for row in range(LONE_PATIENCE_EVENTS)))
    assert windows.reference(NOW) == THEN + 1e6 + (LONE_PATIENCE_EVENTS - 1) / 10
    assert windows.summary("ann", NOW).count == LONE_PATIENCE_EVENTS


@pytest.mark.parametrize("who", ["nobody", "ann"])
def test_forgetting_somebody_who_does_not_lead_leaves_the_clock_alone(who: str) -> None:
    windows = _windows()
    _replay(windows, 0, 400)
    for user in ("eve", "bob"):
        _ingest(windows, user, THEN + 400)
    _ingest(windows, "zoe", *[THEN + 1e6] * 100)
    clock = windows.event_clock
    assert clock is not None
    _ingest(windows, "ann", THEN + 300)
    _ingest(windows, "zoe", *[THEN + 1e6] * 100)
    before = clock.state
    windows.detach(who)
    assert clock.state == before
    assert before.beyond == 100


def test_a_clock_is_the_same_after_a_restart_though_the_others_have_expired() -> None:
    windows = _windows()
    _cross_alone(windows)
    assert windows.event_clock is not None
    again = EventClock(WINDOW)
    again.resume(windows.event_clock.state, [("zoe", windows.newest_timestamp)])
    assert again == windows.event_clock


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
    for user in ("mallory", "malvolio"):
        _ingest(windows, user, *(NOW - 5000 + row for row in range(10)))
    assert _ingest(windows, "ann", THEN + 400) == [LATE]
    windows.forget("mallory")
    windows.forget("malvolio")
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
    patience.setattr(event_clock, "LONE_PATIENCE_EVENTS", 5)
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
            resumed = EventClock(10.0)
            resumed.resume(again.state, naive.newest_users())
            again = resumed
            naive.agree(again)
    finally:
        patience.undo()
