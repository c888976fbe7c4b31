"""What the handlers last said of their spools; they have no port of their own to be asked at."""

from typing import TypedDict

from state_service.wire import SpoolReport

_MAX_HOSTS = 1_000  # which report; the one that has been silent for longest is forgotten first


class SpoolSummary(TypedDict):
    """All hosts' spools together; `reported_at` is the newest report's time, epoch seconds."""

    batches: int
    bytes: int
    oldest_seconds: float
    refused: int
    spooled_events: int
    replayed_events: int
    expired_events: int
    reported_at: float | None


class Spools:
    """The last report of each host."""

    def __init__(self) -> None:
        self._reports: dict[str, SpoolReport] = {}  # the newest last
        self._reported_at: float | None = None

    def add(self, report: SpoolReport, now: float) -> None:
        """Take a host's report in place of its last one."""
        self._reports.pop(report.host, None)
        self._reports[report.host] = report
        self._reported_at = now
        if len(self._reports) > _MAX_HOSTS:
            del self._reports[next(iter(self._reports))]

    def summary(self) -> SpoolSummary:
        """Return the sums, and the oldest age."""
        reports = self._reports.values()
        return {
            "batches": sum(report.batches for report in reports),
            "bytes": sum(report.bytes for report in reports),
            "oldest_seconds": max((report.oldest_seconds for report in reports), default=0.0),
            "refused": sum(report.refused for report in reports),
            "spooled_events": sum(report.spooled_events for report in reports),
            "replayed_events": sum(report.replayed_events for report in reports),
            "expired_events": sum(report.expired_events for report in reports),
            "reported_at": self._reported_at,
        }
