"""The immutable segment: a sealed run of scores, sorted by user, then by score. Pure numpy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from state_service.ordering import by_slot_then_score
from state_service.runs import Runs
from state_service.timestamps import Timestamps


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Scores of many users, each user's in one contiguous, ascending run.

    `runs` says whose runs lie where in `scores` (float64 [events]) and in the timestamps.
    `number` is its own among all segments held or on disk, so a snapshot writes it once.
    """

    number: int
    runs: Runs
    packed_timestamps: Timestamps
    scores: NDArray[np.float64]
    min_timestamp: float
    max_timestamp: float

    @classmethod
    def build(
        cls,
        number: int,
        slots: NDArray[np.int32],
        timestamps: NDArray[np.float64],
        scores: NDArray[np.float64],
    ) -> "Segment":
        """Sort three columns of one length n >= 1 into a segment. O(n)."""
        order, sorted_slots, sorted_scores = by_slot_then_score(slots, scores)
        packed = Timestamps.pack(timestamps).take(order)
        return cls._of_runs(number, Runs.find_in(sorted_slots), packed, sorted_scores)

    @classmethod
    def of_sorted_runs(
        cls,
        number: int,
        slots: NDArray[np.int32],
        counts: NDArray[np.int64],
        timestamps: NDArray[np.float64],
        scores: NDArray[np.float64],
    ) -> "Segment":
        """Arrange runs whose scores ascend already: `slots[i]` has the next `counts[i]` events.

        The slots are distinct, in any order, and the columns what `require_sorted_runs` takes.
        O(events + users log users): no score is sorted.
        """
        ends = np.cumsum(counts)
        by_slot = slots.argsort()
        places = _positions((ends - counts)[by_slot], counts[by_slot])
        packed = Timestamps.pack(timestamps).take(places)
        runs = Runs.of_lengths(slots[by_slot], counts[by_slot])
        return cls._of_runs(number, runs, packed, scores[places])

    @classmethod
    def _of_runs(
        cls,
        number: int,
        runs: Runs,
        timestamps: Timestamps,
        scores: NDArray[np.float64],
    ) -> "Segment":
        oldest, newest = timestamps.edges()
        return cls(number, runs, timestamps, scores, oldest, newest)

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def timestamps(self) -> NDArray[np.float64]:
        """Each event's timestamp, float64 [events]; computed."""
        return self.packed_timestamps.decoded()

    @property
    def slots(self) -> NDArray[np.int32]:
        """Whose runs these are, ascending, int32 [users]."""
        return self.runs.slots

    @property
    def counts(self) -> NDArray[np.int64]:
        """Each user's number of events, int64 [users]; computed."""
        return self.runs.counts

    @property
    def nbytes(self) -> int:
        """Size of the arrays in bytes."""
        return self.runs.nbytes + self.packed_timestamps.column.nbytes + self.scores.nbytes

    def columns(self) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]:
        """Return (slots, timestamps, scores), one entry an event. O(events)."""
        return np.repeat(self.slots, self.counts), self.timestamps, self.scores

    def gather(self, slots: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Find many users' runs at once: (index into `slots`, position in the columns) an event.

        Vectorised; O(len(slots) log users + events found).
        """
        found, begins, counts = self.runs.find_many(slots)
        return np.repeat(found, counts), _positions(begins, counts)

    def without(self, slots: NDArray[np.int32], number: int) -> "Segment | None":
        """Return the segment but for these users' runs; None when nothing is left. O(events)."""
        mine, counts = self.slots, self.counts
        others = ~np.isin(mine, slots)
        if not others.any():
            return None
        places = np.repeat(others, counts).nonzero()[0]
        return Segment._of_runs(
            number,
            Runs.of_lengths(mine[others], counts[others]),
            self.packed_timestamps.take(places),
            self.scores[places],
        )

    def check(self) -> None:
        """Assert every invariant."""
        timestamps = self.timestamps
        self.runs.check()
        assert len(self.scores) == len(timestamps) == self.counts.sum() > 0
        inside = np.ones(len(self) - 1, bool)
        inside[np.cumsum(self.counts)[:-1] - 1] = False  # from one user's run to the next
        assert (self.scores[1:] >= self.scores[:-1])[inside].all(), "scores ascend within a user"
        assert self.min_timestamp == timestamps.min()
        assert self.max_timestamp == timestamps.max()


def require_sorted_runs(
    user_ids: Sequence[str],
    counts: NDArray[np.int64],
    timestamps: NDArray[np.float64],
    scores: NDArray[np.float64],
) -> None:
    """Raise `ValueError` unless user i has the next `counts[i]` >= 1 events, scores ascending."""
    if not len(scores) or len(timestamps) != len(scores) or len(counts) != len(user_ids):
        raise ValueError("the columns are empty or differ in length")
    if (counts <= 0).any() or counts.sum() != len(scores) or len(set(user_ids)) != len(user_ids):
        raise ValueError("the events are not one run a user")
    falls = ~(scores[1:] >= scores[:-1])
    falls[np.cumsum(counts)[:-1] - 1] = False  # from one user's run to the next
    if falls.any() or not (np.isfinite(scores).all() and np.isfinite(timestamps).all()):
        raise ValueError("a user's scores do not ascend, or are not finite")


def _positions(first: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return first[0], first[0] + 1, … (counts[0] of them), first[1], … as one array."""
    skipped = first - (np.cumsum(counts) - counts)
    places: NDArray[np.intp] = np.arange(counts.sum()) + np.repeat(skipped, counts)
    return places
