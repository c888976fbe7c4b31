"""The window engine: every user's recent scores, and exact questions about them. Pure.

The rules
---------
1. A score is in the window at time t when `t - window_seconds <= timestamp <= t +
   max_future_seconds`. Time is an argument: no clock is read here.
2. `clock="wall"`: t is the caller's now. `clock="event"`: t is the newest timestamp accepted so
   far, so a replay of old data sees the windows it saw then.
3. What arrives older than the window is late, what lies beyond the future bound (by the caller's
   now, under both clocks: one wrong clock far ahead must move nobody's window) is future.
   Neither is kept; both are counted.
4. Order does not matter and nothing is approximate: the median is the middle score, or the mean
   of the two middle ones, of float64; quantiles are numpy's `linear`.

How it works
------------
Scores are appended to a small *memtable* of three columns. When it is full, or when somebody
asks, it is sealed: sorted into an immutable `Segment` in which each user has one run. A question
collects the user's runs, leaves out what lies outside the asked time, and selects.

Forgetting needs no sweeper: once the newest timestamp in a segment has left the window and the
history, the segment is dropped whole. `history_seconds` is how much longer than the window scores
are kept, so that a question about a moment ago (`at`) is still exact.

User ids are interned to small integers (slots). `_held` counts each slot's events wherever they
are; when a dropped segment takes a user's last one, the slot is given to the next newcomer. So
memory follows the scores held and the users who have some, not history.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from state_service.errors import CapacityError, HistoryError
from state_service.merging import Work
from state_service.segment import Segment
from state_service.statistics import Summary, medians_by_owner, summarise

ACCEPTED, LATE, FUTURE = 0, 1, 2

_NO_FLOATS = np.empty(0, np.float64)


@dataclass(frozen=True, slots=True)
class WindowRules:
    """What a window is; times in seconds."""

    window_seconds: float = 300.0
    max_future_seconds: float = 60.0
    history_seconds: float = 10.0
    clock: Literal["wall", "event"] = "wall"
    max_live_events: int = 50_000_000
    max_active_users: int = 5_000_000
    memtable_events: int = 32_768


class MedianColumns(NamedTuple):
    """Answers for many users: `medians` float64 [n] (NaN where empty), `counts`, `newest`."""

    medians: NDArray[np.float64]
    counts: NDArray[np.int64]
    newest: NDArray[np.float64]


# --- interface stub: replaced by the engine's own -------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judgement:
    """What would become of each event: int8 [n]."""

    verdicts: NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Question:
    """One user's window, collected."""

    timestamps: NDArray[np.float64]
    scores: NDArray[np.float64]
    quantiles: Sequence[float]

    @property
    def size(self) -> int:
        """Scores to look at."""
        return len(self.scores)

    def answer(self) -> Summary:
        """Return the statistics."""
        return summarise(self.timestamps, self.scores, self.quantiles)


@dataclass(frozen=True, slots=True)
class MediansQuestion:
    """Many users' windows, collected."""

    owners: NDArray[np.int64]
    timestamps: NDArray[np.float64]
    scores: NDArray[np.float64]
    back: NDArray[np.intp]
    owner_count: int

    @property
    def size(self) -> int:
        """Scores to look at."""
        return len(self.scores)

    def answer(self) -> MedianColumns:
        """Return the medians."""
        medians, counts, newest = medians_by_owner(
            self.owners, self.timestamps, self.scores, self.owner_count
        )
        return MedianColumns(medians[self.back], counts[self.back], newest[self.back])


class Windows:
    """All users' windows. Not thread-safe: one owner, one thread."""

    def __init__(self, rules: WindowRules) -> None:
        self.rules = rules
        self.newest_timestamp = -np.inf  # of all accepted so far: the event clock
        self._slot_of: dict[str, int] = {}
        self._user_of: list[str | None] = []  # by slot; None while the slot is free
        self._free_slots: list[int] = []
        self._held = np.zeros(1024, np.int64)  # events by slot, memtable included
        self._segments: list[Segment] = []
        self._next_number = 1
        self._fill = 0
        self._memtable_newest = -np.inf
        self._slots = np.empty(rules.memtable_events, np.int32)
        self._timestamps = np.empty(rules.memtable_events, np.float64)
        self._scores = np.empty(rules.memtable_events, np.float64)

    # --- what is held -------------------------------------------------------------------------

    @property
    def live_events(self) -> int:
        """Scores held in memory. O(segments)."""
        return self._fill + sum(map(len, self._segments))

    @property
    def active_users(self) -> int:
        """Users with at least one score held. O(1)."""
        return len(self._slot_of)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The sealed segments, oldest seal first."""
        return tuple(self._segments)

    def user_ids(self, segment: Segment) -> list[str]:
        """Return the ids of a held segment's users, in the order of its runs."""
        return [self._user_of[slot] for slot in segment.slots]

    def reference(self, now: float) -> float:
        """Return the time windows end at: `now`, or the newest timestamp under the event clock."""
        return now if self.rules.clock == "wall" else self.newest_timestamp

    # --- writing ------------------------------------------------------------------------------

    def ingest(
        self,
        user_ids: Sequence[str],
        timestamps: NDArray[np.float64],
        scores: NDArray[np.float64],
        now: float,
    ) -> NDArray[np.int8]:
        """Take n scores; return what became of each: ACCEPTED, LATE or FUTURE, int8 [n].

        All or nothing: raises `CapacityError` before anything has changed. O(n), and now and
        then a seal.
        """
        verdicts = self.judge(user_ids, timestamps, now).verdicts
        kept = verdicts == ACCEPTED
        self.append(list(compress(user_ids, kept)), timestamps[kept], scores[kept])
        return verdicts

    def judge(
        self, user_ids: Sequence[str], timestamps: NDArray[np.float64], now: float
    ) -> Judgement:
        """Tell what would become of events; raises `CapacityError`; changes nothing."""
        verdicts = np.zeros(len(user_ids), np.int8)
        verdicts[timestamps > now + self.rules.max_future_seconds] = FUTURE
        newest = float(timestamps.max(initial=self.newest_timestamp, where=verdicts == ACCEPTED))
        reference = now if self.rules.clock == "wall" else newest
        verdicts[timestamps < reference - self.rules.window_seconds] = LATE
        kept = verdicts == ACCEPTED
        kept_ids = list(compress(user_ids, kept))
        self._check_room(kept_ids)
        return Judgement(verdicts)

    def append(
        self,
        user_ids: Sequence[str],
        timestamps: NDArray[np.float64],
        scores: NDArray[np.float64],
    ) -> None:
        """Take events that have been judged ACCEPTED; never refuses."""
        if user_ids:
            self.newest_timestamp = max(self.newest_timestamp, float(timestamps.max()))
            self._append(self._intern(user_ids), timestamps, scores)

    def freeze(self) -> None:
        """Close the memtable."""
        self.seal()

    def next_work(self) -> Work | None:
        """Return the next piece of background work."""
        return None

    def finish(self, work: Work, segment: Segment) -> None:
        """Swap in the result of a piece of work."""

    def abandon(self, work: Work) -> None:
        """Take a piece of work back undone."""

    def expire(self, now: float) -> None:
        """Drop what no question can reach any more. O(segments + users dropped)."""
        horizon = self._horizon(now)
        if self._memtable_newest < horizon:
            self.seal()
        kept = []
        for segment in self._segments:
            if segment.max_timestamp < horizon:
                self._release(segment)
            else:
                kept.append(segment)
        self._segments = kept

    def seal(self) -> None:
        """Sort the memtable into a segment, if it holds anything. O(m log m)."""
        if not self._fill:
            return
        filled = slice(0, self._fill)
        self._segments.append(
            Segment.build(
                self._next_number,
                self._slots[filled],
                self._timestamps[filled],
                self._scores[filled],
            )
        )
        self._next_number += 1
        self._fill = 0
        self._memtable_newest = -np.inf

    def restore(
        self,
        number: int,
        user_ids: Sequence[str],
        counts: NDArray[np.int64],
        timestamps: NDArray[np.float64],
        scores: NDArray[np.float64],
    ) -> None:
        """Take back a segment from a snapshot: user i has the next `counts[i]` events.

        Slots differ from those of the process that wrote it, so it is sorted anew.
        """
        slots = np.repeat(self._intern(user_ids), counts)
        np.add.at(self._held, slots, 1)
        self._segments.append(Segment.build(number, slots, timestamps, scores))
        self._next_number = max(self._next_number, number + 1)
        self.newest_timestamp = max(self.newest_timestamp, self._segments[-1].max_timestamp)

    # --- questions ----------------------------------------------------------------------------

    def summary(
        self,
        user_id: str,
        now: float,
        window_seconds: float | None = None,
        at: float | None = None,
        quantiles: Sequence[float] = (),
    ) -> Summary:
        """Describe one user's window; an unknown user's is empty.

        Raises `HistoryError` when `at` reaches further back than scores are kept.
        O(segments log users + the user's scores).
        """
        return self.question(user_id, now, window_seconds, at, quantiles).answer()

    def question(
        self,
        user_id: str,
        now: float,
        window_seconds: float | None = None,
        at: float | None = None,
        quantiles: Sequence[float] = (),
    ) -> Question:
        """Collect what `summary` needs; the answer may be computed anywhere."""
        low, high = self._bounds(now, window_seconds, at)
        slot = self._slot_of.get(user_id)
        if slot is None:
            return Question(_NO_FLOATS, _NO_FLOATS, quantiles)
        mine = self._slots[: self._fill] == slot
        timestamps = [self._timestamps[: self._fill][mine]]
        scores = [self._scores[: self._fill][mine]]
        for segment in self._segments:
            if segment.max_timestamp < low or segment.min_timestamp > high:
                continue
            run = segment.run(slot)
            timestamps.append(segment.timestamps[run])
            scores.append(segment.scores[run])
        all_timestamps = np.concatenate(timestamps)
        inside = (all_timestamps >= low) & (all_timestamps <= high)
        return Question(all_timestamps[inside], np.concatenate(scores)[inside], quantiles)

    def medians(
        self,
        user_ids: Sequence[str],
        now: float,
        window_seconds: float | None = None,
        at: float | None = None,
    ) -> MedianColumns:
        """Answer for many users at once, in their order; unknown users are empty.

        Raises `HistoryError` as `summary` does. Vectorised over users: O(segments · users log
        users + n log n) for n scores of theirs.
        """
        return self.medians_question(user_ids, now, window_seconds, at).answer()

    def medians_question(
        self,
        user_ids: Sequence[str],
        now: float,
        window_seconds: float | None = None,
        at: float | None = None,
    ) -> MediansQuestion:
        """Collect what `medians` needs; the answer may be computed anywhere."""
        low, high = self._bounds(now, window_seconds, at)
        if not user_ids:
            no_integers = np.empty(0, np.int64)
            return MediansQuestion(no_integers, _NO_FLOATS, _NO_FLOATS, no_integers, 0)
        asked = np.array([self._slot_of.get(user_id, -1) for user_id in user_ids], np.int32)
        # Each user once, however often asked for; -1 is nobody's slot and finds nothing.
        slots, back = np.unique(asked, return_inverse=True)
        owners, timestamps, scores = self._memtable_of(slots)
        parts = [(owners, timestamps, scores)]
        for segment in self._segments:
            if segment.max_timestamp < low or segment.min_timestamp > high:
                continue
            owners, positions = segment.gather(slots)
            parts.append((owners, segment.timestamps[positions], segment.scores[positions]))
        owners, timestamps, scores = map(np.concatenate, zip(*parts, strict=True))
        inside = (timestamps >= low) & (timestamps <= high)
        return MediansQuestion(owners[inside], timestamps[inside], scores[inside], back, len(slots))

    # --- inside -------------------------------------------------------------------------------

    def _horizon(self, now: float) -> float:
        """Return the oldest timestamp that a question may still reach."""
        rules = self.rules
        return self.reference(now) - rules.window_seconds - rules.history_seconds

    def _bounds(
        self, now: float, window_seconds: float | None, at: float | None
    ) -> tuple[float, float]:
        """Return the closed interval of timestamps asked for."""
        length = self.rules.window_seconds if window_seconds is None else window_seconds
        end = self.reference(now) if at is None else at
        low, horizon = end - length, self._horizon(now)
        if low < horizon:
            raise HistoryError(
                f"at - window is {low:.3f}, but scores are kept from {horizon:.3f} on: ask for a "
                "later 'at' or a shorter 'window' (or raise history_seconds)"
            )
        return low, end + self.rules.max_future_seconds

    def _check_room(self, user_ids: list[str]) -> None:
        rules = self.rules
        if self.live_events + len(user_ids) > rules.max_live_events:
            raise CapacityError(
                f"{rules.max_live_events} live events are held: the limit (max_live_events)"
            )
        newcomers = len(set(user_ids) - self._slot_of.keys())
        if self.active_users + newcomers > rules.max_active_users:
            raise CapacityError(
                f"{rules.max_active_users} users are active: the limit (max_active_users)"
            )

    def _intern(self, user_ids: Sequence[str]) -> NDArray[np.int32]:
        slot_of = self._slot_of
        for user_id in set(user_ids) - slot_of.keys():
            if self._free_slots:
                slot = self._free_slots.pop()
                self._user_of[slot] = user_id
            else:
                slot = len(self._user_of)
                self._user_of.append(user_id)
            slot_of[user_id] = slot
        if len(self._user_of) > len(self._held):
            more = max(len(self._held), len(self._user_of) - len(self._held))
            self._held = np.append(self._held, np.zeros(more, np.int64))
        return np.fromiter(map(slot_of.__getitem__, user_ids), np.int32, len(user_ids))

    def _append(
        self,
        slots: NDArray[np.int32],
        timestamps: NDArray[np.float64],
        scores: NDArray[np.float64],
    ) -> None:
        np.add.at(self._held, slots, 1)
        taken = 0
        while taken < len(slots):
            if self._fill == len(self._slots):
                self.seal()
            count = min(len(slots) - taken, len(self._slots) - self._fill)
            source = slice(taken, taken + count)
            target = slice(self._fill, self._fill + count)
            self._slots[target] = slots[source]
            self._timestamps[target] = timestamps[source]
            self._scores[target] = scores[source]
            self._memtable_newest = max(self._memtable_newest, float(timestamps[source].max()))
            self._fill += count
            taken += count

    def _release(self, segment: Segment) -> None:
        """Uncount a dropped segment's events and recycle the slots that have none left."""
        self._held[segment.slots] -= segment.counts
        for slot in segment.slots[self._held[segment.slots] == 0].tolist():
            user_id = self._user_of[slot]
            assert user_id is not None
            del self._slot_of[user_id]
            self._user_of[slot] = None
            self._free_slots.append(slot)

    def _memtable_of(
        self, slots: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Return (index into `slots`, timestamp, score) of the memtable's events of these users."""
        held = self._slots[: self._fill]
        index = slots.searchsorted(held)
        index[index == len(slots)] = 0
        mine = slots[index] == held
        return (
            index[mine],
            self._timestamps[: self._fill][mine],
            self._scores[: self._fill][mine],
        )

    def check(self) -> None:
        """Assert every invariant; for tests and for a debugger."""
        held = np.zeros_like(self._held)
        np.add.at(held, self._slots[: self._fill], 1)
        for segment in self._segments:
            segment.check()
            held[segment.slots] += segment.counts
        assert (held == self._held).all(), "every event is counted once"
        assert held.sum() == self.live_events
        memtable = self._timestamps[: self._fill]
        assert memtable.max(initial=-np.inf) == self._memtable_newest
        assert {slot: user for user, slot in self._slot_of.items()} == {
            slot: user for slot, user in enumerate(self._user_of) if user is not None
        }, "ids and slots are each other's inverse"
        assert all(self._held[slot] > 0 for slot in self._slot_of.values()), "active users only"
        assert sorted(self._free_slots) == [
            slot for slot, user in enumerate(self._user_of) if user is None
        ]
        numbers = [segment.number for segment in self._segments]
        assert numbers == sorted(set(numbers))
        assert all(number < self._next_number for number in numbers)
