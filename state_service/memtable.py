"""Where scores arrive: three columns in order of arrival, and the frozen runs cut from them. Pure.

The memtable is the only array in the engine that is written to. Freezing copies what it holds
into a `PendingRun`, which never changes again, so that a thread may sort it while the memtable
fills anew.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class UserRows(NamedTuple):
    """One user's events in order of arrival; no timestamp lies outside the two bounds."""

    timestamps: NDArray[np.float64]
    scores: NDArray[np.float64]
    min_timestamp: float
    max_timestamp: float


@dataclass(frozen=True, slots=True, eq=False)
class PendingRun:
    """Events in order of arrival: `slots` int32, `timestamps`, `scores` float64, each [events]."""

    slots: NDArray[np.int32]
    timestamps: NDArray[np.float64]
    scores: NDArray[np.float64]
    min_timestamp: float
    max_timestamp: float

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def nbytes(self) -> int:
        """Size of the arrays in bytes."""
        return self.slots.nbytes + self.timestamps.nbytes + self.scores.nbytes

    def columns(self) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]:
        """Return (slots, timestamps, scores), one entry an event. O(1)."""
        return self.slots, self.timestamps, self.scores

    def rows_of(self, slot: int) -> UserRows:
        """Return copies of one user's events. O(events), 0.2 ns each."""
        places = (self.slots == slot).nonzero()[0]
        return UserRows(
            self.timestamps[places], self.scores[places], self.min_timestamp, self.max_timestamp
        )

    def split(self, timestamp: float) -> "tuple[PendingRun, ...]":
        """Return what is up to a timestamp and what is newer, each if there is any. O(events)."""
        if self.min_timestamp > timestamp or self.max_timestamp <= timestamp:
            return (self,)
        newer = self.timestamps > timestamp
        return tuple(
            PendingRun(
                self.slots[places],
                self.timestamps[places],
                self.scores[places],
                float(self.timestamps[places].min()),
                float(self.timestamps[places].max()),
            )
            for places in ((~newer).nonzero()[0], newer.nonzero()[0])
        )

    def without(self, slot: int) -> "PendingRun | None":
        """Return the run but for one user's events; None when nothing is left. O(events)."""
        kept = (self.slots != slot).nonzero()[0]
        if not len(kept):
            return None
        timestamps = self.timestamps[kept]
        return PendingRun(
            self.slots[kept],
            timestamps,
            self.scores[kept],
            float(timestamps.min()),
            float(timestamps.max()),
        )


class Memtable:
    """Room for `capacity` events, taken in order of arrival."""

    def __init__(self, capacity: int) -> None:
        self._slots = np.empty(capacity, np.int32)
        self._timestamps = np.empty(capacity, np.float64)
        self._scores = np.empty(capacity, np.float64)
        self.clear()

    def clear(self) -> None:
        """Forget all events. O(1)."""
        self._fill = 0
        self.min_timestamp = np.inf
        self.max_timestamp = -np.inf

    def __len__(self) -> int:
        return self._fill

    @property
    def room(self) -> int:
        """How many more events fit."""
        return len(self._slots) - self._fill

    @property
    def nbytes(self) -> int:
        """Size of the arrays in bytes, filled or not."""
        return self._slots.nbytes + self._timestamps.nbytes + self._scores.nbytes

    def append(
        self,
        slots: NDArray[np.int32],
        timestamps: NDArray[np.float64],
        scores: NDArray[np.float64],
    ) -> None:
        """Take n >= 1 events, at most `room`. O(n)."""
        begin, end = self._fill, self._fill + len(slots)
        self._slots[begin:end] = slots
        self._timestamps[begin:end] = timestamps
        self._scores[begin:end] = scores
        self._fill = end
        self.min_timestamp = min(self.min_timestamp, float(np.minimum.reduce(timestamps)))
        self.max_timestamp = max(self.max_timestamp, float(np.maximum.reduce(timestamps)))

    def view(self) -> PendingRun:
        """Return what is held as a run that is valid until the next change. O(1)."""
        fill = self._fill
        return PendingRun(
            self._slots[:fill],
            self._timestamps[:fill],
            self._scores[:fill],
            self.min_timestamp,
            self.max_timestamp,
        )

    def copy(self) -> PendingRun:
        """Return what is held as a run of its own. O(events), 2 ns each."""
        view = self.view()
        slots, timestamps, scores = view.slots.copy(), view.timestamps.copy(), view.scores.copy()
        return PendingRun(slots, timestamps, scores, view.min_timestamp, view.max_timestamp)

    def check(self) -> None:
        """Assert every invariant."""
        view = self.view()
        assert 0 <= self._fill <= len(self._slots)
        assert view.timestamps.min(initial=np.inf) == self.min_timestamp
        assert view.timestamps.max(initial=-np.inf) == self.max_timestamp
