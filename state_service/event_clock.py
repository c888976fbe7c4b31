"""The time of a replay, told by the events themselves. Pure.

The rules
---------
1. The clock follows the newest timestamp, as long as that lies at most a *step*, half a window,
   ahead of what somebody else's events say. So what one user sends moves the *confirmed* time by
   one step at most, however many rows it has and however they are spaced. An event is late by the
   confirmed time, and what others need is kept by it.
2. What lies further ahead is kept, and waits until a second user gets there: then it is confirmed.
   So a gap in the data, behind which all further events lie, is crossed, and none of them is lost.
3. Behind a gap there may be one user alone. After `PATIENCE_EVENTS` of its events in a row, with
   nobody else's between, the windows end where it is: the clock is *ahead*, it follows that user,
   over a window at a time or again after that many events. The confirmed time stays where it is:
   the first event of anybody else brings the clock back to it, or confirms the new one.
4. As long as there is only one user, nobody can be harmed: what it says is confirmed over a window
   at a time, or after `LONE_PATIENCE_EVENTS` in a row.
5. The very first event may be the wrong one. Until a second one has come near it, an event that
   lies more than a window before takes its place.
6. An event is late when it is older than the window at the moment of its turn. Late events change
   nothing. So the same accepted events in the same order give the same clock, however they are cut
   into groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PATIENCE_EVENTS = 50_000  # as many as one request may carry by default
LONE_PATIENCE_EVENTS = 1_000
_FEW = 8  # one in so many
_MOST_LOOKED_AT = 32  # of a group's newest events, before all are sorted


class ClockState(NamedTuple):
    """What is kept of a clock over a restart; the leader is told by the events held."""

    confirmed: float
    time: float
    second: float
    beyond: int
    settled: bool


@dataclass(slots=True)
class EventClock:
    """Where the time of the events stands. Times in epoch seconds, minus infinity for none.

    `time` is where windows end; `newest` is the newest timestamp accepted, `leader` whose it is,
    `second` the newest of all other users.
    """

    window_seconds: float
    confirmed: float = -np.inf  # never later than `time`
    time: float = -np.inf
    leader: str | None = None
    newest: float = -np.inf
    second: float = -np.inf
    beyond: int = 0  # events of the leader in a row that lay too far ahead
    settled: bool = False  # whether a second event came near the first

    @property
    def ahead(self) -> bool:
        """Whether the clock follows one user alone, unconfirmed."""
        return self.time > self.confirmed

    @property
    def waiting_seconds(self) -> float:
        """How far the newest timestamp lies ahead of the clock; 0 before the first event."""
        return self.newest - self.time if self.time > -np.inf else 0.0

    @property
    def state(self) -> ClockState:
        """What `resume` takes."""
        return ClockState(self.confirmed, self.time, self.second, self.beyond, self.settled)

    def late(
        self, user_ids: Sequence[str], timestamps: NDArray[np.float64]
    ) -> NDArray[np.bool_] | None:
        """Say which of n events would be late, bool [n], None for none; changes nothing. O(n)."""
        if self._all_near(user_ids, timestamps):
            return None
        late = replace(self).take(user_ids, timestamps)
        return late if late.any() else None

    def advance(self, user_ids: Sequence[str], timestamps: NDArray[np.float64]) -> None:
        """Take n >= 1 events that are not late. O(n)."""
        self.take(user_ids, timestamps)

    def resume(self, state: ClockState | None, newest: Sequence[tuple[str, float]]) -> None:
        """Stand where a clock stood, or, without a state, where the events say.

        `newest` are the users with the newest timestamps held, two at most, descending.
        """
        self.leader, self.newest = newest[0] if newest else (None, -np.inf)
        second = newest[1][1] if len(newest) > 1 else -np.inf
        if state is None or state.time > self.newest:  # the clock is never ahead of all events
            near = self.newest <= second + self.window_seconds / 2
            time = self.newest if near or len(newest) < 2 else second
            state = ClockState(time, time, second, 0, time > -np.inf)
        self.confirmed, self.time, self.second, self.beyond, self.settled = state

    def concerns(self, user_id: str, newest_timestamp: float) -> bool:
        """Whether a user, whose newest event this is, is the leader or may be the second."""
        return user_id == self.leader or newest_timestamp >= self.second

    def forget(self, newest: Sequence[tuple[str, float]]) -> None:
        """Go on without the leader or the second: not ahead of what is left; as `resume`."""
        second = newest[1][1] if len(newest) > 1 else -np.inf
        confirmed = max(self.confirmed, second)
        self.resume(ClockState(confirmed, confirmed, second, 0, self.settled), newest)

    # --- all at once --------------------------------------------------------------------------

    @property
    def _reach(self) -> float:
        """Up to where an event is near."""
        if self.second == -np.inf:
            return self.confirmed + self.window_seconds
        return max(self.confirmed, self.second + self.window_seconds / 2)

    @property
    def _patience_events(self) -> int:
        return LONE_PATIENCE_EVENTS if self.second == -np.inf else PATIENCE_EVENTS

    def _all_near(self, user_ids: Sequence[str], timestamps: NDArray[np.float64]) -> bool:
        """Whether none of n events can be late, and each moves the clock if it is newer. O(n)."""
        if not self.settled or not len(timestamps):
            return False
        latest = float(timestamps.max())
        if float(timestamps.min()) < max(latest, self.confirmed) - self.window_seconds:
            return False
        if latest > self._reach:
            return False
        return self.second > -np.inf or user_ids.count(self.leader) == len(user_ids)

    def _follow(self, user_ids: Sequence[str], timestamps: NDArray[np.float64]) -> None:
        """Take n near events, as `_take_one` does one after the other."""
        first = int(timestamps.argmax())
        latest = float(timestamps[first])
        if latest > self.newest:
            if user_ids[first] != self.leader:
                self.second = max(self.second, self.newest)
            self.leader, self.newest = user_ids[first], latest
        self.second = max(self.second, self._newest_of_others(user_ids, timestamps))
        self.time = self.confirmed = max(self.confirmed, self.second, latest)
        self.beyond = 0

    def _newest_of_others(self, user_ids: Sequence[str], timestamps: NDArray[np.float64]) -> float:
        """Return the newest timestamp that is not the leader's, minus infinity for none."""
        count = len(timestamps)
        looked_at = min(count, _MOST_LOOKED_AT)
        places = np.argpartition(timestamps, count - looked_at)[count - looked_at :]
        for place in places[np.argsort(-timestamps[places])].tolist():
            if user_ids[place] != self.leader:
                return float(timestamps[place])
        if user_ids.count(self.leader) == count:
            return -np.inf
        others = np.array([user != self.leader for user in user_ids])
        return float(timestamps[others].max())

    def _all_ahead(self, user_ids: Sequence[str], timestamps: NDArray[np.float64]) -> bool:
        """Whether n events are the leader's, too far ahead and none late, and do the same. O(n)."""
        count = len(timestamps)
        if not count or not self.settled or user_ids.count(self.leader) < count:
            return False
        oldest, latest = float(timestamps.min()), float(timestamps.max())
        if oldest <= self._reach:
            return False
        if not self.ahead:
            return self.beyond + count < self._patience_events
        within = latest <= self.time + self.window_seconds
        return within and oldest >= max(self.time, latest) - self.window_seconds

    def _go_ahead(self, timestamps: NDArray[np.float64]) -> None:
        """Take n such events."""
        latest = float(timestamps.max())
        self.newest = max(self.newest, latest)
        if self.ahead:
            self.time, self.beyond = max(self.time, latest), 0
        else:
            self.beyond += len(timestamps)

    # --- one after the other: where one lies far ahead, or may be late -------------------------

    def take(self, user_ids: Sequence[str], timestamps: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Take n events in order, but for those that are late; return which were, bool [n]. O(n).

        A few that lie far ahead, of a wrong clock say, are taken alone, those between them at once.
        """
        count = len(timestamps)
        late = np.zeros(count, bool)
        if self._all_near(user_ids, timestamps):
            self._follow(user_ids, timestamps)
            return late
        far = (timestamps > self._reach).nonzero()[0]
        begin = 0
        for end in [*far.tolist(), count] if len(far) * _FEW < count else [count]:
            late[begin:end] = self._take_some(user_ids[begin:end], timestamps[begin:end])
            if end < count:
                late[end] = not self._take_one(user_ids[end], float(timestamps[end]))
            begin = end + 1
        return late

    def _take_some(
        self, user_ids: Sequence[str], timestamps: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Take n events at once if they are alike, else one by one; return which were late."""
        late = np.zeros(len(user_ids), bool)
        for begin in (0, 1):  # the first of a user's may make it the leader, then the rest is alike
            ids, stamps = user_ids[begin:], timestamps[begin:]
            if self._all_near(ids, stamps):
                self._follow(ids, stamps)
                return late
            if self._all_ahead(ids, stamps):
                self._go_ahead(stamps)
                return late
            if begin == 0 and len(ids):
                late[0] = not self._take_one(ids[0], float(stamps[0]))
        taken = map(self._take_one, user_ids[1:], timestamps[1:].tolist())
        late[1:] = ~np.fromiter(taken, bool, max(len(user_ids) - 1, 0))
        return late

    def _take_one(self, user: str, timestamp: float) -> bool:
        """Take an event unless it is late; return whether it was taken."""
        window_seconds, confirmed = self.window_seconds, self.confirmed
        replaces = timestamp < confirmed - window_seconds
        if replaces and self.settled:
            return False
        if confirmed + window_seconds < timestamp < self.time - window_seconds:
            return False
        if user == self.leader:
            self.newest = max(self.newest, timestamp)
        elif timestamp > self.newest:
            self.second, self.leader, self.newest = self.newest, user, timestamp
        else:
            self.second = max(self.second, timestamp)
        if replaces or confirmed == -np.inf:
            self.confirmed = self.time = timestamp
            self.beyond = 0
            return True
        if timestamp <= self._reach:
            self.settled = True
            confirmed = max(confirmed, timestamp)
        elif self.second <= confirmed:
            self._wait(timestamp)
            return True
        self.time = self.confirmed = max(confirmed, self.second)
        self.beyond = 0
        return True

    def _wait(self, timestamp: float) -> None:
        """Take an event of the leader that nobody confirms."""
        if self.ahead and timestamp <= self.time + self.window_seconds:
            self.time, self.beyond = max(self.time, timestamp), 0
            return
        self.beyond += 1
        if self.beyond >= self._patience_events:
            self.time, self.beyond, self.settled = timestamp, 0, True
            if self.second == -np.inf:
                self.confirmed = timestamp
