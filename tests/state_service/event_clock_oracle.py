"""The event clock's rules, one event after the other, over all that is remembered of each user."""

import math
from dataclasses import dataclass, field

from state_service import event_clock
from state_service.event_clock import EventClock


@dataclass
class NaiveClock:
    """The oracle: too simple to be fast."""

    window: float
    confirmed: float = -math.inf
    time: float = -math.inf
    newest_of: dict[str | None, float] = field(default_factory=dict)
    beyond: int = 0
    settled: bool = False

    def take(self, user: str, timestamp: float) -> bool:
        """Take an event unless it is late; return whether it was taken."""
        much_older = timestamp < self.confirmed - self.window
        between = self.confirmed + self.window < timestamp < self.time - self.window
        if (much_older and self.settled) or between:
            return False
        self.newest_of[user] = max(timestamp, self.newest_of.get(user, -math.inf))
        *_, second, _ = [-math.inf, *sorted(self.newest_of.values())]
        alone = second == -math.inf
        reach = self.confirmed + self.window if alone else second + self.window / 2
        if much_older or self.confirmed == -math.inf:
            self.confirm(timestamp)
        elif timestamp <= max(reach, self.confirmed):
            self.settled = True
            self.confirm(max(self.confirmed, second, timestamp))
        elif second > self.confirmed:
            self.confirm(second)
        elif self.time > self.confirmed and timestamp <= self.time + self.window:
            self.time, self.beyond = max(self.time, timestamp), 0
        else:
            self.beyond += 1
            patience = event_clock.LONE_PATIENCE_EVENTS if alone else event_clock.PATIENCE_EVENTS
            if self.beyond == patience:
                self.time, self.beyond, self.settled = timestamp, 0, True
                if alone:
                    self.confirmed = timestamp
        return True

    def confirm(self, time: float) -> None:
        """Stand at a time that more than one user tells, or the only one."""
        self.confirmed = self.time = time
        self.beyond = 0

    def newest_users(self) -> list[tuple[str, float]]:
        """Return the two users with the newest timestamps, newest first."""
        users = [(name or "", newest) for name, newest in self.newest_of.items()]
        return sorted(users, key=lambda user: -user[1])[:2]

    def agree(self, clock: EventClock) -> None:
        """Assert that a clock stands where this one does."""
        *_, second, newest = [-math.inf, -math.inf, *sorted(self.newest_of.values())]
        mine = (self.confirmed, self.time, newest, second, self.beyond, self.settled)
        assert mine == (
            clock.confirmed,
            clock.time,
            clock.newest,
            clock.second,
            clock.beyond,
            clock.settled,
        )

    def follow(self, clock: EventClock) -> None:
        """Stand where a clock stands that has lost a user."""
        self.confirmed, self.time = clock.confirmed, clock.time
        self.beyond, self.settled = clock.beyond, clock.settled
        self.newest_of = {clock.leader: clock.newest} if clock.leader is not None else {}
        if clock.second > -math.inf:
            self.newest_of[None] = clock.second
