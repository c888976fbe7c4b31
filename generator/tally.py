"""What happened so far, counted. Requests are counted once, however often they are retried."""

from collections import Counter
from dataclasses import dataclass, field

from generator.latency import LatencyHistogram

_REASONS_MOST = 50


@dataclass(slots=True)
class Tally:
    """Counters of one run.

    `latency` holds the time from due to acknowledged of every acknowledged request; `start_lag`
    the part of it that passed before the first attempt, so a generator that couldn't keep up (or
    ran out of `--max-in-flight`) shows as such; up to about 1 ms of it is the event loop's timer,
    which rounds up to whole milliseconds. `failures` counts failed requests by the reason
    of their last attempt, `attempt_failures` every failed attempt, also those a retry made good.
    """

    sent_requests: int = 0
    sent_events: int = 0
    accepted_requests: int = 0
    accepted_events: int = 0
    skipped_events: int = 0
    late_events: int = 0
    future_events: int = 0
    spooled_events: int = 0
    failed_requests: int = 0
    in_doubt_requests: int = 0
    retried_requests: int = 0
    retries: int = 0
    unsent_events: int = 0
    in_flight: int = 0
    elapsed_seconds: float = 0.0
    interrupted: bool = False
    latency: LatencyHistogram = field(default_factory=LatencyHistogram)
    start_lag: LatencyHistogram = field(default_factory=LatencyHistogram)
    failures: Counter[str] = field(default_factory=Counter)
    attempt_failures: Counter[str] = field(default_factory=Counter)

    @property
    def achieved_rate(self) -> float:
        """Acknowledged events a second of `elapsed_seconds`.

        That time runs from the start to the end of the schedule (or to the interruption), or to
        the last acknowledgement where that came later. Answers that trickle in after the schedule
        thus lower the rate, and a run that ends early can't raise it.
        """
        return self.accepted_events / self.elapsed_seconds if self.elapsed_seconds > 0 else 0.0


def count_reason(counter: Counter[str], reason: str) -> None:
    """Count `reason`; a service that invents ever new ones can't grow the counter."""
    known = reason in counter or len(counter) < _REASONS_MOST
    counter[reason if known else "other"] += 1
