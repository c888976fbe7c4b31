"""The window engine: every user's recent scores, and exact questions about them. Pure.

The rules
---------
1. A score is in the window now when `now - window_seconds <= timestamp <= now +
   max_future_seconds`. It was in the window of a moment when `at - window_seconds <= timestamp <=
   at`, so nothing that comes with a newer timestamp changes an answer about a moment. Time is an
   argument: no clock is read here.
2. `clock="wall"`: now is the caller's. `clock="event"`: it is what the events say
   (`event_clock.py`), so a replay of old data sees the windows it saw then.
3. What arrives older than the window is late, what lies beyond the future bound (by the caller's
   now, under both clocks) is future. Neither is kept; both are counted.
4. Order does not matter and nothing is approximate: the median is the middle score, or the mean
   of the two middle ones, of float64; quantiles are numpy's `linear`.

How it works
------------
Scores are appended to a small *memtable* (`memtable.py`). Full, or when somebody asks, it is
frozen into a *pending run*, still in order of arrival; sorting that by user and score makes it a
*segment* (`segment.py`), in which each user has one ascending run. Small segments of about the same
time are merged into one (`merging.py`). A question (`asking.py`, `questions.py`) takes the
user's rows from the memtable and the pending runs and one run from each segment, leaves out what
lies outside the asked time, and selects (`selection.py`).

All of them are kept in an `EventStore` (`event_store.py`). Only the memtable is ever written to.
Pending runs and segments never change, they are replaced: so the two things that take long,
sorting and answering about many scores, are handed out as `Work` and questions, which any thread
may run while the owner goes on. `finish` swaps a work's segment in for its inputs if they are all
still held; when one has expired or been rewritten meanwhile, the result is of no use and the rest
is handed out again.

Why this forgets without a sweeper: a run whose newest timestamp has left the window and the history
is dropped whole. `history_seconds` is how much longer than the window scores are kept, so that a
question about a moment ago (`at`) is still exact.

Why memory follows what is live: user ids are interned to small integers, *slots*
(`interning.py`). The table counts each slot's events in segments; a slot is given back when a
dropped run took its last one and neither memtable nor pending runs hold another. That is looked
into a bite at a time, by `expire`, so that many users leaving at once stop nobody.

How a user is forgotten: the id is detached from its slot at once, so that no question finds it and
nothing more comes under it. What lies under the slot in segments is then removed as work.
"""

import math
from collections.abc import Sequence
from itertools import compress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from state_service.asking import Asking, WindowRules
from state_service.errors import CapacityError
from state_service.event_clock import ClockState, EventClock
from state_service.merging import CELLS_A_WINDOW, Work
from state_service.newest_users import newest_timestamp_of, newest_users
from state_service.questions import Interval
from state_service.segment import Segment, require_sorted_runs

__all__ = ["ACCEPTED", "FUTURE", "LATE", "Judgement", "WindowRules", "Windows"]

ACCEPTED, LATE, FUTURE = 0, 1, 2


class Judgement(NamedTuple):
    """What is to become of n events: `verdicts` int8 [n], and how many are ACCEPTED."""

    verdicts: NDArray[np.int8]
    accepted: int


class Windows(Asking):
    """All users' windows. Not thread-safe: one owner, one thread; work and questions may roam."""

    # --- going on after a restart ---------------------------------------------------------------

    def resume_clock(self, state: ClockState | None) -> None:
        """Let the event clock, if there is one, go on, once all segments are back.

        Without a state it stands where the events held say. O(events in the newest runs).
        """
        if self.event_clock is not None:
            self.event_clock.resume(state, newest_users(self._store))

    # --- writing ------------------------------------------------------------------------------

    def judge(
        self, user_ids: Sequence[str], timestamps: NDArray[np.float64], now: float
    ) -> Judgement:
        """Say what would become of n events, and change nothing.

        Raises `CapacityError` when there is no room for those that would be accepted. O(n).
        """
        rules = self.rules
        verdicts = np.zeros(len(user_ids), np.int8)
        bound = now + rules.max_future_seconds
        if timestamps.max(initial=-np.inf) > bound:
            verdicts[timestamps > bound] = FUTURE
        if self.event_clock is not None:
            self._judge_late(self.event_clock, user_ids, timestamps, verdicts)
        else:
            oldest = now - rules.window_seconds
            if timestamps.min(initial=np.inf) < oldest:
                verdicts[(timestamps < oldest) & (verdicts == ACCEPTED)] = LATE
        accepted = len(verdicts) - int(np.count_nonzero(verdicts))
        self._check_room(user_ids, verdicts, accepted)
        return Judgement(verdicts, accepted)

    def append(
        self,
        user_ids: Sequence[str],
        timestamps: NDArray[np.float64],
        scores: NDArray[np.float64],
    ) -> None:
        """Take n events that have been judged ACCEPTED; never refuses.

        Freezes the memtable whenever it is full. O(n).
        """
        if not len(user_ids):
            return
        if self.event_clock is not None:
            self.event_clock.advance(user_ids, timestamps)
            self._store.far_after_timestamp = self.event_clock.confirmed + self.rules.window_seconds
        self._store.append(user_ids, timestamps, scores)

    def ingest(
        self,
        user_ids: Sequence[str],
        timestamps: NDArray[np.float64],
        scores: NDArray[np.float64],
        now: float,
    ) -> NDArray[np.int8]:
        """Take n scores; return what became of each: ACCEPTED, LATE or FUTURE, int8 [n].

        All or nothing: raises `CapacityError` before anything has changed. O(n).
        """
        verdicts, accepted = self.judge(user_ids, timestamps, now)
        if accepted == len(verdicts):
            self.append(user_ids, timestamps, scores)
        else:
            kept = verdicts == ACCEPTED
            self.append(list(compress(user_ids, kept)), timestamps[kept], scores[kept])
        return verdicts

    def expire(self, now: float) -> None:
        """Drop what no question can reach any more, and let users go who have nothing left.

        O(runs), and for a bounded number of users at a time O(1) each.
        """
        horizon = self.confirmed(now) - self._kept_seconds
        self._dropped = {user: gap for user, gap in self._dropped.items() if gap.high > horizon}
        clock = self.event_clock
        if clock is None or not clock.ahead:
            self._store.expire(horizon)
            return
        far_horizon = clock.time - self._kept_seconds
        self._store.expire(horizon, far_horizon)
        # No longer complete, should the clock come back. Nobody else's events lie so far ahead.
        if far_horizon > self._store.far_after_timestamp and clock.leader is not None:
            self._dropped[clock.leader] = Interval(self._store.far_after_timestamp, far_horizon)

    def detach(self, user_id: str) -> int:
        """Make a user unknown for good; return how many events that were. O(memtable + pending).

        Their events in segments are nobody's from now on and found by no question; `next_work`
        hands out the removal, and every segment concerned gets another number.
        """
        clock = self.event_clock
        newest = -math.inf if clock is None else newest_timestamp_of(self._store, user_id)
        events = self._store.detach(user_id)
        self._dropped.pop(user_id, None)
        if clock is not None and events and clock.concerns(user_id, newest):
            clock.forget(newest_users(self._store))
        return events

    def forget(self, user_id: str) -> int:
        """`detach` a user and clean up here and now. O(events in the segments concerned)."""
        events = self.detach(user_id)
        self._store.clean()
        return events

    # --- sealing and merging ------------------------------------------------------------------

    def freeze(self) -> None:
        """Close the memtable: what it holds becomes one more pending run. O(memtable)."""
        self._store.freeze()

    def next_work(self) -> Work | None:
        """Hand out a run to sort, a segment to clean or some to merge, None when there is none.

        Each run is handed out once, so several pieces can be worked on at a time. Whoever takes a
        piece brings its result to `finish`, or the piece to `abandon`. O(segments log segments).
        """
        cell_seconds = self.rules.window_seconds / CELLS_A_WINDOW
        clock = self.event_clock
        present = self.newest_timestamp if clock is None else clock.time
        return self._store.next_work(cell_seconds, present)

    def finish(self, work: Work, segment: Segment | None) -> None:
        """Put a work's result in the place of its inputs.

        Without effect when one of them has gone meanwhile: what is left is handed out again.
        O(segments + users in it).
        """
        self._store.finish(work, segment)

    def abandon(self, work: Work) -> None:
        """Take a piece of work back undone: its inputs will be handed out again. O(inputs)."""
        self._store.abandon(work)

    def seal(self) -> None:
        """Freeze, sort and clean up here and now. O(memtable + pending events)."""
        self._store.seal()

    def restore(
        self,
        number: int,
        user_ids: Sequence[str],
        counts: NDArray[np.int64],
        timestamps: NDArray[np.float64],
        scores: NDArray[np.float64],
    ) -> None:
        """Take back a segment from a snapshot: user i has the next `counts[i]` events.

        Each user's scores must ascend; raises `ValueError` when they do not, or when the lengths
        disagree, before anything has changed. Slots differ from those of the process that wrote
        it, so the runs are put into another order, but no score is sorted. O(events).
        """
        require_sorted_runs(user_ids, counts, timestamps, scores)
        self._store.add_segment(number, user_ids, counts, timestamps, scores)

    # --- inside -------------------------------------------------------------------------------

    @staticmethod
    def _judge_late(
        clock: EventClock,
        user_ids: Sequence[str],
        timestamps: NDArray[np.float64],
        verdicts: NDArray[np.int8],
    ) -> None:
        """Mark the late ones among those that are not marked yet."""
        if not verdicts.any():
            late = clock.late(user_ids, timestamps)
            if late is not None:
                verdicts[late] = LATE
            return
        kept = np.flatnonzero(verdicts == ACCEPTED)
        late = clock.late([user_ids[place] for place in kept.tolist()], timestamps[kept])
        if late is not None:
            verdicts[kept[late]] = LATE

    def _check_room(
        self, user_ids: Sequence[str], verdicts: NDArray[np.int8], accepted: int
    ) -> None:
        rules = self.rules
        if accepted and self.live_events + accepted > rules.max_live_events:
            raise CapacityError(
                f"{rules.max_live_events} events are held: the limit (max_live_events)",
                limit="max_live_events",
            )
        if self.active_users + accepted > rules.max_active_users:  # else there is room anyway
            newcomers = self._store.users.newcomers(list(compress(user_ids, verdicts == ACCEPTED)))
            if newcomers and self.active_users + newcomers > rules.max_active_users:
                raise CapacityError(
                    f"{rules.max_active_users} users are held: the limit (max_active_users)",
                    limit="max_active_users",
                )

    def check(self) -> None:
        """Assert every invariant; for tests and for a debugger. O(everything held)."""
        self._store.check()
