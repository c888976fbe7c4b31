"""When each request is due: a pure function of its index, so a slow server can't bend the schedule.

Latency counts from these instants. Were it counted from the moment a request was really sent, a
server that stalls would also stall the measurement, and look fast.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """A constant pace: request `i` is due `i / requests_per_second` seconds after the start.

    `requests_per_second` is finite and positive, `total` (requests in the whole run) at least 1.
    """

    requests_per_second: float
    total: int

    def __post_init__(self) -> None:
        """Raise ValueError for a pace that has no schedule."""
        if not (math.isfinite(self.requests_per_second) and self.requests_per_second > 0):
            raise ValueError(f"a pace of {self.requests_per_second} requests a second is none")
        if self.total < 1:
            raise ValueError("a run has at least one request")

    @classmethod
    def for_events(cls, events_per_second: float, duration_seconds: float, batch: int) -> "Pace":
        """Send `batch` events a request, with every request due before `duration_seconds`."""
        requests_per_second = events_per_second / batch
        requests = requests_per_second * duration_seconds
        # 5000/s * 60 s must be 30000 requests also when the product is 30000.000000000004.
        nearest = round(requests)
        exact = math.isclose(requests, nearest, rel_tol=1e-12)
        return cls(requests_per_second, max(1, nearest if exact else math.ceil(requests)))

    @property
    def window_seconds(self) -> float:
        """How long the schedule lasts: the last request's due time plus one interval."""
        return self.total / self.requests_per_second

    def due_seconds(self, index: int) -> float:
        """When request `index` is due, in seconds after the start."""
        return index / self.requests_per_second

    def due_by(self, elapsed_seconds: float) -> int:
        """How many requests are due once `elapsed_seconds` have passed: 0 to `total`.

        Agrees with `due_seconds` to the last bit: `due_seconds(i) <= t` exactly when
        `i < due_by(t)`.
        """
        if elapsed_seconds < 0:
            return 0
        guess = min(self.total, math.floor(elapsed_seconds * self.requests_per_second) + 1)
        # The product rounds, so the guess can be one off in either direction.
        while guess < self.total and self.due_seconds(guess) <= elapsed_seconds:
            guess += 1
        while guess > 0 and self.due_seconds(guess - 1) > elapsed_seconds:
            guess -= 1
        return guess
