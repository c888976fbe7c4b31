"""What the service has acknowledged, as columns: the evidence `verifying` judges by. Pure.

Events lie in blocks in order of acknowledgement. A block whose newest event can no longer be in any
window is dropped whole, so memory follows the window and not the length of the run.
"""

from collections import deque

import numpy as np
import numpy.typing as npt

from generator.encoding import Floats
from generator.workload import UserIndices

BLOCK_EVENTS = 65_536


class Columns:
    """Events as three equally long columns: `users` (index), `timestamps` (epoch s), `scores`."""

    __slots__ = ("newest", "scores", "size", "timestamps", "users")

    def __init__(self, capacity: int) -> None:
        self.users: UserIndices = np.empty(capacity, np.int32)
        self.timestamps: Floats = np.empty(capacity, np.float64)
        self.scores: Floats = np.empty(capacity, np.float64)
        self.size = 0
        self.newest = -np.inf

    def append(self, users: UserIndices, timestamps: Floats, scores: Floats) -> None:
        """Copy events to the end; the caller has seen that they fit."""
        new = slice(self.size, self.size + len(users))
        self.users[new] = users
        self.timestamps[new] = timestamps
        self.scores[new] = scores
        self.size = new.stop
        self.newest = max(self.newest, float(timestamps.max()))


class Ledger:
    """Acknowledged events, the users ever sent, and the users nobody can be sure about.

    `keep_seconds` is how far back an event may still be asked for.
    """

    def __init__(self, users: int, keep_seconds: float) -> None:
        self.keep_seconds = keep_seconds
        self._sent: npt.NDArray[np.bool_] = np.zeros(users, np.bool_)
        self._in_doubt: npt.NDArray[np.bool_] = np.zeros(users, np.bool_)
        self._blocks: deque[Columns] = deque([Columns(BLOCK_EVENTS)])

    def sent(self, users: UserIndices) -> None:
        """Note users before their events leave: whatever happens, they are to be checked."""
        self._sent[users] = True

    def doubt(self, users: UserIndices) -> None:
        """Note users some of whose events may or may not count: no median can be expected."""
        self._in_doubt[users] = True

    def acknowledge(self, users: UserIndices, timestamps: Floats, scores: Floats) -> None:
        """Keep acknowledged events, equally long columns, none of them NaN."""
        if len(users) == 0:
            return
        block = self._blocks[-1]
        if block.size + len(users) > len(block.users):
            block = Columns(max(BLOCK_EVENTS, len(users)))
            self._blocks.append(block)
        block.append(users, timestamps, scores)

    def forget(self, now: float) -> None:
        """Drop the blocks that lie wholly before `now - keep_seconds`; the newest block stays."""
        while len(self._blocks) > 1 and self._blocks[0].newest < now - self.keep_seconds:
            self._blocks.popleft()

    def between(self, oldest: float, newest: float) -> tuple[UserIndices, Floats]:
        """Users and scores of the kept events with `oldest <= timestamp <= newest`."""
        users, scores = [], []
        for block in self._blocks:
            timestamps = block.timestamps[: block.size]
            live = (timestamps >= oldest) & (timestamps <= newest)
            users.append(block.users[: block.size][live])
            scores.append(block.scores[: block.size][live])
        return np.concatenate(users), np.concatenate(scores)

    @property
    def comparable_users(self) -> UserIndices:
        """Users sent whose every event is known to count or not to, in ascending order."""
        return np.flatnonzero(self._sent & ~self._in_doubt).astype(np.int32)

    @property
    def users_in_doubt(self) -> int:
        """How many users can't be compared."""
        return int(np.count_nonzero(self._in_doubt))

    @property
    def kept_events(self) -> int:
        """How many events are held in memory."""
        return sum(block.size for block in self._blocks)
