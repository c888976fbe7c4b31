"""The event clock's rules, one event after the other, over all that is remembered of each user."""

import math
from dataclasses import dataclass, field

from state_service.event_clock import PATIENCE_EVENTS, EventClock


@dataclass
class NaiveClock:
    """The oracle: too simple to be fast."""

    window: float
    time: float = -math.inf
    newest_of: dict[str | None, float] = field(default_factory=dict)
    speaker: str | None = None
    alone: int = 0
    beyond: int = 0
    settled: bool = False

    def take(self, user: str, timestamp: float) -> bool:
        """Take an event unless it is late; return whether it was taken."""
        much_older = timestamp < self.time - self.window
        if much_older and (self.settled or (user == self.speaker and self.alone > 1)):
            return False
        self.alone = self.alone + 1 if user == self.speaker else 1
        self.speaker = user
        self.newest_of[user] = max(timestamp, self.newest_of.get(user, -math.inf))
        if much_older or self.time == -math.inf:
            self.time = timestamp
            return True
        *_, second, _ = [-math.inf, *sorted(self.newest_of.values())]
        reach = second + self.window / 2
        if self.alone >= PATIENCE_EVENTS or second == -math.inf:
            reach = max(reach, self.time + self.window)
        self.beyond = 0 if timestamp <= reach else self.beyond + 1
        if self.beyond in (0, PATIENCE_EVENTS):
            self.time, self.settled, self.beyond = max(self.time, timestamp), True, 0
        self.time = max(self.time, second)
        return True

    def agree(self, clock: EventClock) -> None:
        """Assert that a clock stands where this one does."""
        *_, second, newest = [-math.inf, -math.inf, *sorted(self.newest_of.values())]
        mine = (self.time, newest, second, self.speaker, self.alone, self.beyond, self.settled)
        assert mine == (
            clock.time,
            clock.newest,
            clock.second,
            clock.speaker,
            clock.alone,
            clock.beyond,
            clock.settled,
        )

    def follow(self, clock: EventClock) -> None:
        """Stand where a clock stands that has been restarted, or has lost a user."""
        self.time, self.speaker = clock.time, clock.speaker
        self.alone, self.beyond, self.settled = clock.alone, clock.beyond, clock.settled
        self.newest_of = {clock.leader: clock.newest} if clock.leader is not None else {}
        if clock.second > -math.inf:
            self.newest_of[None] = clock.second
