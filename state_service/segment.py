"""The immutable segment: a sealed run of scores, sorted by user, then by score. Pure numpy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Scores of many users, each user's in one contiguous, sorted run.

    `slots` int32 [users], ascending: whose runs these are; user i's run is
    `starts[i]:starts[i + 1]` (int64 [users + 1]) of `scores` and `timestamps` (float64 [events]).
    `number` is its own among the segments held and those on disk, so a snapshot writes it once.
    """

    number: int
    slots: NDArray[np.int32]
    starts: NDArray[np.int64]
    timestamps: NDArray[np.float64]
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
        """Sort three columns of one length n >= 1 into a segment. O(n log n)."""
        order = np.lexsort((scores, slots))
        users, first = np.unique(slots[order], return_index=True)
        return cls(
            number=number,
            slots=users,
            starts=np.append(first, len(slots)).astype(np.int64),
            timestamps=timestamps[order],
            scores=scores[order],
            min_timestamp=float(timestamps.min()),
            max_timestamp=float(timestamps.max()),
        )

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Each user's number of events, int64 [users]."""
        return np.diff(self.starts)

    def run(self, slot: int) -> slice:
        """Return where one user's run is; empty when the user has none here. O(log users)."""
        index = int(self.slots.searchsorted(slot))
        if index == len(self.slots) or self.slots[index] != slot:
            return slice(0, 0)
        return slice(int(self.starts[index]), int(self.starts[index + 1]))

    def gather(self, slots: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find many users' runs at once: (index into `slots`, position in the columns) an event.

        Vectorised; O(len(slots) log users + events found).
        """
        index = self.slots.searchsorted(slots)
        index[index == len(self.slots)] = 0
        counts = np.where(self.slots[index] == slots, self.counts[index], 0)
        owners = np.repeat(np.arange(len(slots)), counts)
        # Position = the run's start + how far into the run: 0, 1, … restarting for each user.
        within = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        return owners, np.repeat(self.starts[:-1][index], counts) + within

    def check(self) -> None:
        """Assert every invariant."""
        assert len(self.scores) == len(self.timestamps) == self.starts[-1] > 0
        assert self.starts[0] == 0
        assert (self.counts > 0).all(), "a user without events has no run"
        assert (np.diff(self.slots) > 0).all(), "users ascend"
        inside = np.ones(len(self) - 1, bool)
        inside[self.starts[1:-1] - 1] = False  # the step from one user's run to the next
        assert (np.diff(self.scores)[inside] >= 0).all(), "scores ascend within a user"
        assert self.min_timestamp == self.timestamps.min()
        assert self.max_timestamp == self.timestamps.max()
