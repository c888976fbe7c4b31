"""What one run is asked to do. `cli` fills and checks it; nothing else invents values."""

from dataclasses import dataclass
from pathlib import Path

from generator.pacing import Pace
from generator.workload import WorkloadOptions

SCORER_PATH = "/predictions/scorer"
MEDIANS_PATH = "/medians"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """One run. Rates in events a second, times in seconds, URLs without a trailing slash."""

    url: str
    state_url: str
    rate: float
    duration_seconds: float
    workload: WorkloadOptions
    verify: bool
    json_file: Path | None
    max_in_flight: int
    retries: int
    timeout_seconds: float
    drain_seconds: float
    token: str | None
    state_token: str | None
    quiet: bool

    @property
    def pace(self) -> Pace:
        """The schedule that rate, duration and batch make."""
        return Pace.for_events(self.rate, self.duration_seconds, self.workload.batch)
