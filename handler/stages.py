"""How long each stage of a TorchServe batch takes, until somebody asks.

A worker has no port to be asked at: the durations travel with the next scores to the state service,
which shows them beside its own. What comes after the recording travels with the batch after.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

_MAX_KEPT = 256  # a stage, while nothing can be recorded: the oldest have been seen by then


class Stages:
    """Durations in seconds by stage: `decode`, `score`, `record`, `respond`."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Measure the block, unless it raises."""
        begin = time.perf_counter()
        yield
        kept = self._seconds[stage]
        kept.append(time.perf_counter() - begin)
        del kept[:-_MAX_KEPT]

    def take(self) -> dict[str, list[float]]:
        """Hand over what has been measured since the last call; it is counted once or lost."""
        taken, self._seconds = self._seconds, defaultdict(list)
        return taken
