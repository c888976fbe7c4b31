"""Where each user's run lies in a segment. Pure numpy.

Two layouts, whichever is smaller: *dense*, 4 bytes for each slot up to the highest, where a slot is
its own index; and *sparse*, 8 bytes for each user there is, found by binary search. Dense wins as
long as half of all users occur in a segment; sparse keeps a segment as small as its users when they
are many and each occurs seldom.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """The runs of a segment's users, one after the other, by ascending slot.

    Dense: `keys` is None and slot s has `starts[s]:starts[s + 1]`, maybe nothing. Sparse: slot
    `keys[i]` (int32, ascending) has `starts[i]:starts[i + 1]`. `starts` is uint32.
    """

    keys: NDArray[np.int32] | None
    starts: NDArray[np.uint32]

    @classmethod
    def find_in(cls, slots: NDArray[np.int32]) -> "Runs":
        """Find the runs in an ascending column of n >= 1 slots. O(n)."""
        starts = np.flatnonzero(np.concatenate(([True], slots[1:] != slots[:-1], [True])))
        return cls.of_lengths(slots[starts[:-1]], starts[1:] - starts[:-1])

    @classmethod
    def of_lengths(cls, keys: NDArray[np.int32], counts: NDArray[np.int64]) -> "Runs":
        """Lay out the runs of ascending slots, `counts[i]` >= 1 events of `keys[i]`. O(users)."""
        highest = int(keys[-1])
        if highest + 1 > 2 * len(keys):
            return cls(keys, np.concatenate(([0], np.cumsum(counts))).astype(np.uint32))
        lengths = np.zeros(highest + 2, np.int64)
        lengths[keys + 1] = counts
        return cls(None, np.cumsum(lengths).astype(np.uint32))

    @property
    def slots(self) -> NDArray[np.int32]:
        """Whose runs these are, ascending, int32 [users]."""
        if self.keys is not None:
            return self.keys
        return np.flatnonzero(self.starts[1:] != self.starts[:-1]).astype(np.int32)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Each one's number of events, int64 [users]; computed."""
        starts = self.starts.astype(np.int64)
        counts = starts[1:] - starts[:-1]
        return counts if self.keys is not None else counts[counts > 0]

    @property
    def nbytes(self) -> int:
        """Size of the arrays in bytes."""
        return self.starts.nbytes + (0 if self.keys is None else self.keys.nbytes)

    def find(self, slot: int) -> tuple[int, int]:
        """Return where one user's run begins and ends, twice the same when there is none.

        O(1) dense, O(log users) sparse.
        """
        keys, starts = self.keys, self.starts
        if keys is None:
            index = slot
            if index >= len(starts) - 1:
                return 0, 0
        else:
            index = int(keys.searchsorted(np.int32(slot)))  # of another type, keys were converted
            if index == len(keys) or keys.item(index) != slot:
                return 0, 0
        return starts.item(index), starts.item(index + 1)

    def find_many(
        self, slots: NDArray[np.int32]
    ) -> tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.int64]]:
        """Return (index into `slots`, begin, length) of each run there is. O(n log users)."""
        if self.keys is None:
            found = np.flatnonzero((slots >= 0) & (slots < len(self.starts) - 1))
            index: NDArray[np.intp] = slots[found].astype(np.intp)
        else:
            index = self.keys.searchsorted(slots)
            index[index == len(self.keys)] = 0
            found = np.flatnonzero(self.keys[index] == slots)
            index = index[found]
        begins = self.starts[index].astype(np.int64)
        return found, begins, self.starts[index + 1] - begins

    def check(self) -> None:
        """Assert every invariant."""
        slots = self.slots
        assert self.starts[0] == 0
        assert len(slots) == len(self.counts) > 0
        assert (self.counts > 0).all(), "a user without events has no run"
        assert slots[0] >= 0
        assert (np.diff(slots) > 0).all(), "users ascend"
        dense, sparse = 4 * (int(slots[-1]) + 2), 4 * (2 * len(slots) + 1)
        assert self.nbytes <= min(dense, sparse + 4)
        for index in {0, len(slots) - 1}:
            begin, end = self.find(int(slots[index]))
            assert end - begin == self.counts[index]
