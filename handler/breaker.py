"""A circuit breaker: a dead state service must not cost each request its timeout. Pure.

Closed, calls are made. One that fails opens it: nobody calls but a probe, at intervals that double
up to a bound, each moved by chance so that the workers of many hosts do not come back at once.

Source: M. Nygard, Release It!, "Circuit Breaker"; "full jitter" of M. Brooker, Exponential Backoff
And Jitter (AWS Architecture Blog, 2015).
"""

import random
from collections.abc import Callable

_FIRST_SECONDS, _LONGEST_SECONDS = 0.1, 2.0


class Backoff:
    """Growing pauses between attempts."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._failures = 0

    def pause_seconds(self) -> float:
        """Return how long to wait after one more failure: half of the bound at least."""
        bound = min(_LONGEST_SECONDS, _FIRST_SECONDS * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return bound * (1 + self._chance()) / 2

    def reset(self) -> None:
        """Begin again with the shortest."""
        self._failures = 0


class CircuitBreaker:
    """Open or closed. One thread calls, another probes: a flag is all they share."""

    def __init__(self) -> None:
        self._open = False

    @property
    def is_open(self) -> bool:
        """Whether calls are futile for now."""
        return self._open

    def opens(self) -> None:
        """Say that a call has failed."""
        self._open = True

    def closes(self) -> None:
        """Say that a call, or a probe, has been answered."""
        self._open = False
