"""How long the event loop has kept others waiting lately: one number that tells of any stall.

A timer that should fire every 20 ms measures by how much it is late. A request that arrives at
such a moment waits as long, before anything of it is even read.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field

_PERIOD_SECONDS = 0.02
_KEPT_SECONDS = 10.0


@dataclass(slots=True)
class LoopLag:
    """The lags of the last 10 seconds."""

    _lags: deque[float] = field(
        default_factory=lambda: deque(maxlen=round(_KEPT_SECONDS / _PERIOD_SECONDS))
    )

    @property
    def worst_seconds(self) -> float:
        """The longest of them; 0 before the first."""
        return max(self._lags, default=0.0)

    async def measure(self, closing: asyncio.Event) -> None:
        """Measure until `closing`."""
        while not closing.is_set():
            due = time.perf_counter() + _PERIOD_SECONDS
            await asyncio.sleep(_PERIOD_SECONDS)
            self._lags.append(max(0.0, time.perf_counter() - due))
