"""The time of a replay, told by the events themselves. Pure.

The rules
---------
1. The clock follows the newest timestamp, as long as that lies at most a *step* ahead of what
   somebody else's events say; a step is half a window. So a user whose clock is wrong moves
   everybody's windows by one step at most, however many rows it sends and however it spaces them.
2. What lies further ahead is kept, and the clock waits until it is confirmed: by a second user who
   gets there, or by `PATIENCE_EVENTS` events in a row, all of them too far ahead. So a real gap in
   the data, behind which all further events lie, is crossed, and none of them is lost.
3. Whoever has been alone from the beginning, or for `PATIENCE_EVENTS` events, need not wait for
   others: a whole window counts as near then, from the clock itself.
4. The very first event may be the wrong one. Until a second one has come near it, an event that
   lies more than a window before takes its place.
5. An event is late when it is older than the window at the moment of its turn. Late events change
   nothing. So the same accepted events in the same order give the same clock, however they are cut
   into groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PATIENCE_EVENTS = 1_000
_FEW = 8  # one in so many
_MOST_LOOKED_AT = 32  # of a group's newest events, before all are sorted


class ClockState(NamedTuple):
    """What is kept of a clock over a restart; the users in it are told by the events held."""

    time: float
    alone: int
    beyond: int
    settled: bool


@dataclass(slots=True)
class EventClock:
    """Where the time of the events stands. Times in epoch seconds, minus infinity for none.

    `newest` is the newest timestamp accepted, `leader` whose it is, `second` the newest of all
    other users.
    """

    window_seconds: float
    time: float = -np.inf
    leader: str | None = None
    newest: float = -np.inf
    second: float = -np.inf
    speaker: str | None = None  # whose the last event was
    alone: int = 0  # events of the speaker in a row
    beyond: int = 0  # events in a row that lay too far ahead
    settled: bool = False  # whether a second event came near the first

    @property
    def waiting_seconds(self) -> float:
        """How far the newest timestamp lies ahead of the clock; 0 before the first event."""
        return self.newest - self.time if self.time > -np.inf else 0.0

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
        if self._all_near(user_ids, timestamps):
            self._follow(user_ids, timestamps)
        else:
            self.take(user_ids, timestamps)

    @property
    def state(self) -> ClockState:
        """What `resume` takes. A row of events of somebody who does not lead counts for nothing."""
        alone = self.alone if self.speaker == self.leader else 0
        return ClockState(self.time, alone, self.beyond, self.settled)

    def resume(self, state: ClockState | None, newest: Sequence[tuple[str, float]]) -> None:
        """Stand where a clock stood, or, without a state, where the events say.

        `newest` are the users with the newest timestamps held, two at most, descending.
        """
        self.leader, self.newest = newest[0] if newest else (None, -np.inf)
        self.second = newest[1][1] if len(newest) > 1 else -np.inf
        if state is None or state.time > self.newest:  # the clock is never ahead of all events
            near = self.newest <= self.second + self.window_seconds / 2
            time = self.newest if near or len(newest) < 2 else self.second
            state = ClockState(time, 0, 0, time > -np.inf)
        self.time, self.alone, self.beyond, self.settled = state
        self.speaker = self.leader if self.alone else None

    def forget(self, newest: Sequence[tuple[str, float]]) -> None:
        """Go on without a user: not ahead of what is left. `newest` as in `resume`."""
        self.resume(ClockState(self.time, 0, 0, self.settled), newest)

    # --- all at once: where every event is near, the clock is simply the newest ----------------

    def _all_near(self, user_ids: Sequence[str], timestamps: NDArray[np.float64]) -> bool:
        """Whether none of n events can be late, and each moves the clock if it is newer. O(n)."""
        if not self.settled or not len(timestamps):
            return False
        latest = float(timestamps.max())
        if float(timestamps.min()) < max(latest, self.time) - self.window_seconds:
            return False
        if latest <= self.second + self.window_seconds / 2:
            return True
        trusted = self.alone >= PATIENCE_EVENTS or self.second == -np.inf
        return (
            trusted
            and latest <= self.time + self.window_seconds
            and user_ids[0] == self.speaker
            and user_ids.count(user_ids[0]) == len(user_ids)
        )

    def _follow(self, user_ids: Sequence[str], timestamps: NDArray[np.float64]) -> None:
        """Do for all what `take` does for one after the other."""
        last = user_ids[-1]
        if user_ids.count(last) == len(user_ids):
            self.alone = len(user_ids) + (self.alone if last == self.speaker else 0)
        else:
            self.alone = next(n for n, user in enumerate(reversed(user_ids)) if user != last)
        self.speaker, self.beyond = last, 0
        first = int(timestamps.argmax())
        latest = float(timestamps[first])
        if latest > self.newest:
            if user_ids[first] != self.leader:
                self.second = max(self.second, self.newest)
            self.leader, self.newest = user_ids[first], latest
        self.second = max(self.second, self._newest_of_others(user_ids, timestamps))
        self.time = max(self.time, self.second, latest)

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

    # --- one after the other: where one lies far ahead, or may be late -------------------------

    def take(self, user_ids: Sequence[str], timestamps: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Take n events in order, but for those that are late; return which were, bool [n]. O(n).

        A few that lie far ahead, of a wrong clock say, are taken alone, those between them at once.
        """
        count = len(timestamps)
        late = np.zeros(count, bool)
        far = (timestamps > self.second + self.window_seconds / 2).nonzero()[0]
        begin = 0
        for end in [*far.tolist(), count] if len(far) * _FEW < count else [count]:
            ids, stamps = user_ids[begin:end], timestamps[begin:end]
            if self._all_near(ids, stamps):
                self._follow(ids, stamps)
            else:
                taken = map(self._take_one, ids, stamps.tolist())
                late[begin:end] = ~np.fromiter(taken, bool, len(ids))
            if end < count:
                late[end] = not self._take_one(user_ids[end], float(timestamps[end]))
            begin = end + 1
        return late

    def _take_one(self, user: str, timestamp: float) -> bool:
        """Take an event unless it is late; return whether it was taken."""
        replaces = timestamp < self.time - self.window_seconds
        if replaces and (self.settled or (user == self.speaker and self.alone > 1)):
            return False
        self.alone = self.alone + 1 if user == self.speaker else 1
        self.speaker = user
        if user == self.leader:
            self.newest = max(self.newest, timestamp)
        elif timestamp > self.newest:
            self.second, self.leader, self.newest = self.newest, user, timestamp
        else:
            self.second = max(self.second, timestamp)
        if replaces or self.time == -np.inf:
            self.time = timestamp
            return True
        trusted = self.alone >= PATIENCE_EVENTS or self.second == -np.inf
        reach = self.second + self.window_seconds / 2
        if timestamp <= (max(reach, self.time + self.window_seconds) if trusted else reach):
            self.time, self.beyond, self.settled = max(self.time, timestamp), 0, True
        else:
            self.beyond += 1
            if self.beyond >= PATIENCE_EVENTS:
                self.time, self.beyond, self.settled = max(self.time, timestamp), 0, True
        self.time = max(self.time, self.second)
        return True
