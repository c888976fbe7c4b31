"""Questions about windows: taken down by the windows' owner, answered by any thread. Pure.

A question holds the immutable runs that it is about, and a copy of what the memtable held for it.
So it answers as of the moment it was asked, however much is written, merged, expired or forgotten
before the answer: a slot that somebody else has by then is still its old user's in these runs.

Of the segments, those that lie outside the asked time altogether are passed over, those inside
are taken as they are; only in those that straddle an edge does each timestamp decide.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from state_service.memtable import PendingRun, UserRows
from state_service.segment import Segment
from state_service.statistics import Summary, medians_by_owner, summarise

_NO_FLOATS = np.empty(0, np.float64)
_EVENTS_AT_ONCE = 1 << 20  # bounds the memory that a question about many users takes


class MedianColumns(NamedTuple):
    """Answers for many users: `medians` float64 [n] (NaN where empty), `counts`, `newest`."""

    medians: NDArray[np.float64]
    counts: NDArray[np.int64]
    newest: NDArray[np.float64]

    def take(self, places: NDArray[np.intp]) -> "MedianColumns":
        """Return the answers at some places."""
        return MedianColumns(self.medians[places], self.counts[places], self.newest[places])


class UserMedians(NamedTuple):
    """Users with a score in the window, and their answers, aligned."""

    user_ids: list[str]
    columns: MedianColumns


@dataclass(frozen=True, slots=True)
class Interval:
    """The closed interval of timestamps asked for, epoch seconds."""

    low: float
    high: float

    def misses(self, run: Segment | PendingRun) -> bool:
        """Whether nothing in the run is inside."""
        return run.max_timestamp < self.low or run.min_timestamp > self.high

    def covers(self, run: Segment | PendingRun | UserRows) -> bool:
        """Whether everything in the run is inside."""
        return self.low <= run.min_timestamp and run.max_timestamp <= self.high

    def inside(self, timestamps: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return the places of the timestamps inside. O(n)."""
        # Places and not a mask: to take by a mask without a pattern costs three times as much.
        return ((timestamps >= self.low) & (timestamps <= self.high)).nonzero()[0]


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """About one user. `size`: the user's scores held, in the window or not."""

    slot: int  # -1 for an unknown user
    interval: Interval
    segments: Sequence[Segment]  # by newest timestamp, ascending
    loose: Sequence[UserRows]  # none of them empty
    size: int
    quantiles: Sequence[float]
    mean: bool

    def answer(self) -> Summary:
        """Describe the user's window. O(segments log users), and what `summarise` takes."""
        heap, newest = self._unsorted()
        runs, newest = self._sorted(newest)
        return summarise(runs, heap, newest, self.quantiles, mean=self.mean)

    def _unsorted(self) -> tuple[NDArray[np.float64], float]:
        """Return what is not in segments, a new array, and its newest timestamp."""
        parts: list[NDArray[np.float64]] = [_NO_FLOATS]
        newest = -np.inf
        for rows in self.loose:
            timestamps, scores = rows.timestamps, rows.scores
            if not self.interval.covers(rows):
                inside = self.interval.inside(timestamps)
                timestamps, scores = timestamps[inside], scores[inside]
            if len(scores):
                parts.append(scores)
                newest = max(newest, float(np.maximum.reduce(timestamps)))
        return np.concatenate(parts), newest

    def _sorted(self, newest: float) -> tuple[list[NDArray[np.float64]], float]:
        """Return the user's ascending run in each segment, and the newest timestamp so far."""
        runs: list[NDArray[np.float64]] = []
        slot, low, high = self.slot, self.interval.low, self.interval.high
        for segment in reversed(self.segments):
            run_newest = segment.max_timestamp
            if run_newest < low:
                break  # as are all that follow
            begin, end = segment.runs.find(slot)
            if begin == end:
                continue
            if low <= segment.min_timestamp and run_newest <= high:
                runs.append(segment.scores[begin:end])
                if run_newest > newest:  # else the user has nothing newer there
                    newest = max(newest, segment.packed_timestamps.newest(slice(begin, end)))
                continue
            timestamps = segment.packed_timestamps.decoded(slice(begin, end))
            inside = self.interval.inside(timestamps)
            if len(inside):
                runs.append(segment.scores[begin:end][inside])
                if run_newest > newest:
                    newest = max(newest, float(np.maximum.reduce(timestamps[inside])))
        return runs, newest


@dataclass(frozen=True, slots=True, eq=False)
class MediansQuestion:
    """About many users: `asked` int32 [n], -1 for unknown ones. `size`: their scores held."""

    asked: NDArray[np.int32]
    interval: Interval
    runs: Sequence[Segment | PendingRun]
    counts: NDArray[np.int32]  # of the asked: events in segments
    size: int

    def answer(self) -> MedianColumns:
        """Answer for each, in the order asked. O(segments · n log users + their scores)."""
        # Each user once, however often asked for; -1 is nobody's slot and finds nothing.
        slots, first, back = np.unique(self.asked, return_index=True, return_inverse=True)
        columns = _medians(slots, self.counts[first], self.interval, self.runs)
        return columns.take(back)


@dataclass(frozen=True, slots=True, eq=False)
class AllMediansQuestion:
    """About all users. `ids`: by slot, None where nobody is. `size`: scores held.

    `detached`: slots whose scores are nobody's any more.
    """

    ids: Sequence[str | None]
    detached: Sequence[int]
    interval: Interval
    runs: Sequence[Segment | PendingRun]
    size: int

    def answer(self) -> UserMedians:
        """Answer for each user with a score in the window, in no order. O(scores held)."""
        slots, columns = self.columns()
        return UserMedians(self.names(slots), columns)

    def columns(self) -> tuple[NDArray[np.int32], MedianColumns]:
        """Return the slots with scores in the window, ascending, and the answers for them."""
        slots, counts = self.counted()
        return slots, _medians(slots, counts, self.interval, self.runs)

    def counted(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the slots with scores in the window, ascending, and how many each has."""
        counts = np.zeros(len(self.ids), np.int64)
        for run in self.runs:
            if self.interval.misses(run):
                continue
            if isinstance(run, Segment) and self.interval.covers(run):
                counts[run.slots] += run.counts
            else:
                slots, timestamps, _ = run.columns()
                np.add.at(counts, slots[self.interval.inside(timestamps)], 1)
        counts[self.detached] = 0
        active = np.flatnonzero(counts)
        return active.astype(np.int32), counts[active]

    def names(self, slots: NDArray[np.int32]) -> list[str]:
        """Return the ids of slots that have scores."""
        return [user_id for slot in slots.tolist() if (user_id := self.ids[slot]) is not None]


def _medians(
    slots: NDArray[np.int32],
    counts: NDArray[np.integer],
    interval: Interval,
    runs: Sequence[Segment | PendingRun],
) -> MedianColumns:
    """Answer for distinct ascending slots, a bite of users after the other."""
    runs = [run for run in runs if not interval.misses(run)]
    bite = np.cumsum(counts, dtype=np.int64) // _EVENTS_AT_ONCE
    ends = [*(np.flatnonzero(np.diff(bite)) + 1).tolist(), len(slots)]
    bites = [
        _medians_of_bite(slots[begin:end], interval, runs)
        for begin, end in zip([0, *ends], ends, strict=False)
    ]
    return MedianColumns(*(np.concatenate(column) for column in zip(*bites, strict=True)))


def _medians_of_bite(
    slots: NDArray[np.int32], interval: Interval, runs: Sequence[Segment | PendingRun]
) -> MedianColumns:
    parts: list[tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]] = [
        (np.empty(0, np.intp), _NO_FLOATS, _NO_FLOATS)
    ]
    for run in runs if len(slots) else ():
        if isinstance(run, Segment):
            owners, places = run.gather(slots)
            timestamps, scores = run.packed_timestamps.decoded(places), run.scores[places]
        else:
            owners, timestamps, scores = _rows_of(run, slots)
        if not interval.covers(run):
            inside = interval.inside(timestamps)
            owners, timestamps, scores = owners[inside], timestamps[inside], scores[inside]
        parts.append((owners, timestamps, scores))
    owners, timestamps, scores = map(np.concatenate, zip(*parts, strict=True))
    return MedianColumns(*medians_by_owner(owners.astype(np.int32), timestamps, scores, len(slots)))


def _rows_of(
    run: PendingRun, slots: NDArray[np.int32]
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Return (index into `slots`, timestamp, score) of these users' events in an unsorted run."""
    index = slots.searchsorted(run.slots)
    index[index == len(slots)] = 0
    rows = np.flatnonzero(slots[index] == run.slots)
    return index[rows], run.timestamps[rows], run.scores[rows]
