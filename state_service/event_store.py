"""All events held, wherever they are on their way from the memtable to a merged segment. Pure.

Knows nothing of windows: `horizon` says which timestamps no question will reach any more. What
becomes of an event is told in `windows.py`.
"""

from collections import deque
from collections.abc import Sequence
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from state_service.interning import UserTable
from state_service.memtable import Memtable, PendingRun
from state_service.merging import Work, choose
from state_service.segment import Segment

Run = Segment | PendingRun

_RELEASED_AT_ONCE = 16_384  # users let go by one `expire`


class EventStore:
    """The memtable, the pending runs and the segments. One owner, one thread.

    Its runs are immutable: whoever took them may look into them from any thread.
    """

    def __init__(self, memtable_events: int) -> None:
        self.users = UserTable()
        self.memtable = Memtable(memtable_events)
        self.pending: tuple[PendingRun, ...] = ()
        self.segments: tuple[Segment, ...] = ()  # by newest timestamp, ascending
        self.live_events = 0
        self.newest_timestamp = -np.inf  # of all events there ever were
        # What is newer is kept in runs of its own, or it would keep older events from expiring.
        self.far_after_timestamp = np.inf
        self._next_number = 1
        self._in_work: set[Run] = set()  # handed out, not yet back
        self._leaving: deque[NDArray[np.int32]] = deque()  # slots whose last event may be gone

    @property
    def unsorted(self) -> tuple[PendingRun, ...]:
        """The pending runs and the memtable, the latter valid until the next change. O(1)."""
        return (*self.pending, self.memtable.view())

    @property
    def sealed(self) -> bool:
        """Whether all events are in segments, and each is somebody's. O(segments + detached)."""
        detached = list(self.users.detached)
        everything = sum(map(len, self.segments)) == self.live_events
        return everything and not self.users.counts[detached].any()

    @property
    def array_bytes(self) -> int:
        """Size of all arrays in bytes; user ids and their dictionary not included. O(runs)."""
        runs: tuple[Run, ...] = (*self.segments, *self.pending)
        return sum(run.nbytes for run in runs) + self.memtable.nbytes + self.users.array_bytes

    def snapshot(self) -> tuple[Run, ...]:
        """Return all that is held as runs that never change. O(memtable), 2 ns an event."""
        return (*self.segments, *self.pending, self.memtable.copy())

    # --- coming and going ---------------------------------------------------------------------

    def append(
        self,
        user_ids: Sequence[str],
        timestamps: NDArray[np.float64],
        scores: NDArray[np.float64],
    ) -> None:
        """Take n >= 1 events; freezes the memtable whenever it is full. O(n)."""
        self.append_slots(self.users.intern(user_ids), timestamps, scores)

    def append_slots(
        self,
        slots: NDArray[np.int32],
        timestamps: NDArray[np.float64],
        scores: NDArray[np.float64],
    ) -> None:
        """Take n >= 1 events of users that have their slots. O(n)."""
        taken, count = 0, len(slots)
        self.live_events += count
        while taken < count:
            part = slice(taken, taken + self.memtable.room)
            self.memtable.append(slots[part], timestamps[part], scores[part])
            taken = part.stop
            self.newest_timestamp = max(self.newest_timestamp, self.memtable.max_timestamp)
            if not self.memtable.room:
                self.freeze()

    def add_segment(
        self,
        number: int,
        user_ids: Sequence[str],
        counts: NDArray[np.int64],
        timestamps: NDArray[np.float64],
        scores: NDArray[np.float64],
    ) -> None:
        """Take what `require_sorted_runs` takes as a segment. O(events): no score is sorted."""
        slots = self.users.intern(user_ids)
        segment = Segment.of_sorted_runs(number, slots, counts, timestamps, scores)
        self._replace((), (segment,))
        self.newest_timestamp = max(self.newest_timestamp, segment.max_timestamp)
        self._next_number = max(self._next_number, number + 1)

    def expire(self, horizon: float, far_horizon: float = -np.inf) -> None:
        """Drop runs older than the horizon, and let users go who have nothing left.

        Of the runs that lie far ahead altogether, those older than `far_horizon` go, too. O(runs),
        and for a bounded number of users at a time O(1) each.
        """
        if self.memtable.max_timestamp < horizon and len(self.memtable):
            self._leaving.append(self.memtable.copy().slots)
            self.live_events -= len(self.memtable)
            self.memtable.clear()
        for run in self.pending:
            if run.max_timestamp < horizon:
                self._replace((run,), ())
        for segment in self.segments:
            if segment.max_timestamp >= horizon:
                break
            self._replace((segment,), ())
        if far_horizon > self.far_after_timestamp:
            runs: tuple[Run, ...] = (*self.pending, *self.segments)
            for far in runs:
                if self.far_after_timestamp < far.min_timestamp <= far.max_timestamp < far_horizon:
                    self._replace((far,), ())
        if self._leaving:
            self._let_go()

    def detach(self, user_id: str) -> int:
        """Make a user unknown; return how many events that were.

        Those not yet in a segment go at once, those in segments are nobody's from now on:
        `next_work` hands out their removal. O(memtable + pending events).
        """
        slot = self.users.find(user_id)
        if slot < 0:
            return 0
        self.users.detach(user_id)
        before, in_segments = self.live_events, int(self.users.counts[slot])
        rows = self.memtable.view().without(slot)
        self.live_events -= len(self.memtable)
        self.memtable.clear()
        if rows is not None:
            self.live_events += len(rows)
            self.memtable.append(*rows.columns())
        for run in self.pending:
            rest = run.without(slot)
            if rest is None or len(rest) < len(run):
                self._replace((run,), () if rest is None else (rest,))
        self._leaving.appendleft(np.array([slot], np.int32))
        return before - self.live_events + in_segments

    # --- sealing and merging ------------------------------------------------------------------

    def freeze(self) -> None:
        """Close the memtable: what it holds becomes one more pending run. O(memtable)."""
        if len(self.memtable):
            self.pending += self.memtable.copy().split(self.far_after_timestamp)
            self.memtable.clear()

    def next_work(self, cell_seconds: float, present: float) -> Work | None:
        """Hand out a run to sort, a segment to clean or some to merge, None when there is none.

        Each run is handed out once, so several pieces can be worked on at a time. Whoever takes a
        piece brings its result to `finish`, or the piece to `abandon`. O(segments log segments).
        """
        idle = [run for run in self.pending if run not in self._in_work][:1]
        inputs: tuple[Run, ...] = tuple(idle)
        segments = [segment for segment in self.segments if segment not in self._in_work]
        without = None
        if not inputs and self.users.detached:
            inputs, without = self._with_detached(segments)
        inputs = inputs or choose(segments, present, cell_seconds)
        if not inputs:
            return None
        self._in_work.update(inputs)
        return Work(self._take_number(), inputs, without)

    def _with_detached(
        self, segments: Sequence[Segment]
    ) -> tuple[tuple[Segment, ...], NDArray[np.int32] | None]:
        """Return a segment with events that are nobody's, if there is one, and their slots."""
        detached = np.array(sorted(self.users.detached), np.int32)
        for segment in segments:
            found, _, counts = segment.runs.find_many(detached)
            if counts.any():
                return (segment,), detached[found[counts > 0]]
        return (), None

    def finish(self, work: Work, segment: Segment | None) -> None:
        """Put a work's result in the place of its inputs.

        Without effect when one of them has gone meanwhile: what is left is handed out again.
        O(segments + users in it).
        """
        self.abandon(work)
        if {*self.pending, *self.segments}.issuperset(work.inputs):
            self._replace(work.inputs, () if segment is None else (segment,))
            if work.without is not None:
                self._leaving.appendleft(work.without)

    def abandon(self, work: Work) -> None:
        """Take a piece of work back undone: its inputs will be handed out again. O(inputs)."""
        self._in_work.difference_update(work.inputs)

    def seal(self) -> None:
        """Freeze, sort and `clean` here and now. O(memtable + pending events)."""
        self.freeze()
        for run in self.pending:
            work = Work(self._take_number(), (run,))
            self.finish(work, work.run())
        self.clean()

    def clean(self) -> None:
        """Remove what is nobody's from the segments here and now. O(events in them)."""
        while (found := self._with_detached(self.segments))[0]:
            work = Work(self._take_number(), *found)
            self.finish(work, work.run())

    # --- inside -------------------------------------------------------------------------------

    def _take_number(self) -> int:
        self._next_number += 1
        return self._next_number - 1

    def _replace(
        self,
        old: Sequence[Run],
        new: Sequence[Run],
    ) -> None:
        """Swap runs, and count: live events, and each user's events in segments."""
        counts = self.users.counts
        for run in old:
            self.live_events -= len(run)
            if isinstance(run, Segment):
                counts[run.slots] -= run.counts.astype(np.int32)
        for run in new:
            self.live_events += len(run)
            if isinstance(run, Segment):
                counts[run.slots] += run.counts.astype(np.int32)
        if not new:
            self._leaving.extend(run.slots for run in old)
        held = [run for run in (*self.pending, *self.segments, *new) if run not in old]
        self.pending = tuple(run for run in held if isinstance(run, PendingRun))
        segments = [run for run in held if isinstance(run, Segment)]
        self.segments = tuple(sorted(segments, key=attrgetter("max_timestamp")))

    def _let_go(self) -> None:
        """Recycle slots of users with nothing left, of a bounded number of those in question."""
        bite: list[NDArray[np.int32]] = []
        room = _RELEASED_AT_ONCE
        while self._leaving and room:
            slots = self._leaving.popleft()
            if len(slots) > room:
                self._leaving.appendleft(slots[room:])
            bite.append(slots[:room])
            room -= len(bite[-1])
        slots = self.users.without_events(np.concatenate(bite))
        if len(slots):
            elsewhere = np.zeros(self.users.capacity, bool)
            for run in (*self.pending, self.memtable.view()):
                elsewhere[run.slots] = True
            self.users.release(slots[~elsewhere[slots]])

    def check(self) -> None:
        """Assert every invariant. O(everything held)."""
        self.users.check()
        self.memtable.check()
        counts = np.zeros(self.users.capacity, np.int64)
        for segment in self.segments:
            segment.check()
            counts[segment.slots] += segment.counts
        assert (counts == self.users.counts).all(), "events in segments are counted"
        assert counts.sum() + sum(map(len, self.unsorted)) == self.live_events
        for run in self.unsorted:
            np.add.at(counts, run.slots, 1)
        active, interned = set(np.flatnonzero(counts).tolist()), self.users.taken_slots()
        assert active <= interned, "whoever has a score has a slot"
        leaving = {slot for slots in self._leaving for slot in slots.tolist()}
        assert interned - active <= leaving, "whoever has none is about to lose it"
        for run in self.pending:
            assert run.min_timestamp == run.timestamps.min()
            assert run.max_timestamp == run.timestamps.max()
        newest = [segment.max_timestamp for segment in self.segments]
        assert newest == sorted(newest)
        assert max(run.max_timestamp for run in self.snapshot()) <= self.newest_timestamp
        numbers = [segment.number for segment in self.segments]
        assert len(numbers) == len(set(numbers))
        assert all(number < self._next_number for number in numbers)
