"""How long each stage of an event's way takes, in the handler and here: one place to look.

The handler has no port of its own to be asked at, so it sends its durations along with the scores.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypedDict

from prometheus_client import Histogram

from state_service.wire import HandlerStage

# In the order of an event's way. The handler's are measured once a TorchServe batch; `receive`, the
# decoding of a body that is there, once a POST /scores; `journal`, `apply` once a group commit.
STAGES = {
    "handler": ("decode", "score", "record", "respond"),
    "state": ("receive", "journal", "apply"),
}
_BUCKETS_SECONDS = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
)  # fmt: skip


class StageSummary(TypedDict):
    """One stage since the start: how often, how long in all and on average, in seconds."""

    count: int
    seconds_total: float
    mean_seconds: float


class Stages:
    """The durations since the start of the process."""

    def __init__(self) -> None:
        self.histogram = Histogram(
            "medianserve_stage_seconds",
            "Time a batch, a request or a group spends in a stage.",
            ["tier", "stage"],
            registry=None,
            buckets=_BUCKETS_SECONDS,
        )
        self._of = {
            stage: self.histogram.labels(tier, stage)
            for tier, stages in STAGES.items()
            for stage in stages
        }
        self._totals = dict.fromkeys(self._of, (0, 0.0))

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Measure the block, unless it raises."""
        begin = time.perf_counter()
        yield
        self._add(stage, time.perf_counter() - begin)

    def add(self, durations: Mapping[HandlerStage, Sequence[float]]) -> None:
        """Count durations in seconds by stage, measured elsewhere."""
        for stage, seconds in durations.items():
            for each in seconds:
                self._add(stage, each)

    def summary(self) -> dict[str, StageSummary]:
        """Return each stage's count and durations."""
        return {
            stage: {
                "count": count,
                "seconds_total": total,
                "mean_seconds": total / count if count else 0.0,
            }
            for stage, (count, total) in self._totals.items()
        }

    def _add(self, stage: str, seconds: float) -> None:
        self._of[stage].observe(seconds)
        count, total = self._totals[stage]
        self._totals[stage] = count + 1, total + seconds
