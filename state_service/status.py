"""What has happened since the process started: plain numbers that /stats and /metrics read."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Requests and events."""

    ingest_requests: int = 0
    accepted: int = 0
    late: int = 0
    future: int = 0
    duplicates: int = 0
    skipped: int = 0
    forgotten: int = 0  # events from before their users were forgotten, left out
    users_forgotten: int = 0
    median_requests: int = 0
    requests_refused: int = 0
    timed_requests: int = 0
    latency_seconds_total: float = 0.0
    limit_hits: Counter[str] = field(default_factory=Counter)  # by setting

    def hit(self, limit: str, times: int = 1) -> None:
        """Count that something was refused or given up at a limit, named by its setting."""
        self.limit_hits[limit] += times

    @property
    def events_processed(self) -> int:
        """Events scored and handed in, each once; late and future ones included."""
        return self.accepted + self.late + self.future

    @property
    def avg_ingest_latency_seconds(self) -> float:
        """Mean from the handler's receipt of a request to its acceptance here."""
        return self.latency_seconds_total / self.timed_requests if self.timed_requests else 0.0


@dataclass(slots=True)
class SnapshotStatus:
    """The last snapshots: times in epoch seconds, durations in seconds."""

    last_at: float | None = None
    last_duration_seconds: float | None = None
    failures: int = 0
    error: str | None = None  # why the last one failed; None once one has succeeded
    clean_up_error: str | None = None  # why what the last one covers is still in the file


@dataclass(slots=True)
class JournalStatus:
    """Group commits."""

    commits: int = 0
    failures: int = 0
    error: str | None = None  # why the last one failed; None once writing has succeeded


@dataclass(slots=True)
class RestoreStatus:
    """What came back at start."""

    segments_total: int = 0
    segments_done: int = 0
    journal_rows_total: int = 0
    journal_rows_done: int = 0
    events: int = 0
    damaged_blocks: int = 0
    damaged_journal_rows: int = 0
    duration_seconds: float | None = None  # None until it is done

    @property
    def progress(self) -> str:
        """How far it is, in words."""
        text = f"{self.segments_done} of {self.segments_total} segments"
        if self.journal_rows_total:
            text += f", {self.journal_rows_done} of {self.journal_rows_total} journal rows"
        return text
