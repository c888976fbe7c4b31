"""The service's numbers for Prometheus; most are read when asked for, so the hot path pays nothing.

Names are in base units, a counter ends in `_total`, what bounds a gauge stands beside it as
`<gauge>_limit`, and no label ever holds a user id. docs/metrics.md explains each.
"""

from collections.abc import Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics
from prometheus_client.aiohttp import make_aiohttp_handler
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from state_service import __version__
from state_service.app_keys import CENSUS, SERVICE
from state_service.census import Headcount
from state_service.ingest import Ingest
from state_service.routes_service import event_clock_of
from state_service.schema import LOG_BYTES
from state_service.service import StateService
from state_service.settings import LIMITS
from state_service.traffic import Traffic

_EVENT_CLOCK = {
    "time": ("event_clock_timestamp_seconds", "Where the windows of a replay end."),
    "behind_seconds": ("event_clock_behind_seconds", "How far that lies behind this server."),
    "waiting_seconds": ("event_clock_waiting_seconds", "How far the newest event is ahead of it."),
}


def add_metrics(app: web.Application, traffic: Traffic, ingest: Ingest) -> None:
    """Serve `/metrics`."""
    # Else each series has a second one, which says when it began.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    collector = _ServiceCollector(app[SERVICE], ingest)
    registry.register(collector)
    registry.register(app[SERVICE].stages.histogram)
    registry.register(traffic.requests)
    registry.register(traffic.seconds)
    ProcessCollector(registry=registry)
    answer = make_aiohttp_handler(registry)

    async def get_metrics(request: web.Request) -> web.StreamResponse:
        collector.headcount = await request.app[CENSUS].headcount()
        return await answer(request)

    app.router.add_get("/metrics", get_metrics)


class _ServiceCollector(Collector):
    """Reads one service's counters and gauges."""

    def __init__(self, service: StateService, ingest: Ingest) -> None:
        self._service = service
        self._ingest = ingest
        self.headcount = Headcount()

    def collect(self) -> Iterator[Metric]:
        yield from self._build()
        yield from self._events()
        yield from self._held()
        yield from self._journal()
        yield from self._snapshots()
        yield from self._spools()

    def _build(self) -> Iterator[Metric]:
        service, settings = self._service, self._service.settings
        build = GaugeMetricFamily(
            "medianserve_build_info", "Always 1; which version runs.", labels=["version"]
        )
        build.add_metric([__version__], 1)
        yield build
        yield _gauge("ready", "1 when requests are served.", int(service.phase == "ready"))
        yield _gauge("window_seconds", "Length of every window.", settings.window_seconds)
        yield _gauge(
            "loop_lag_seconds",
            "Longest wait for the event loop in the last 10 seconds.",
            service.loop_lag.worst_seconds,
        )

    def _events(self) -> Iterator[Metric]:
        counters = self._service.counters
        yield _counter("ingest_requests", "Client requests counted.", counters.ingest_requests)
        events = CounterMetricFamily(
            "medianserve_events", "Events by what became of them.", labels=["outcome"]
        )
        for outcome in ("accepted", "late", "future", "duplicates", "skipped", "forgotten"):
            events.add_metric([outcome], getattr(counters, outcome))
        yield events
        yield _counter("median_requests", "Questions for medians.", counters.median_requests)
        yield _counter("requests_refused", "Answers 4xx and 5xx.", counters.requests_refused)
        limits = CounterMetricFamily(
            "medianserve_limit_hits", "What was refused or given up at a limit.", labels=["limit"]
        )
        for name in LIMITS:
            limits.add_metric([name], counters.limit_hits[name])
        yield limits
        yield _counter("users_forgotten", "Users forgotten.", counters.users_forgotten)
        yield _gauge(
            "tombstones",
            "Forgotten users whose replays are left out.",
            len(self._service.state.tombstones),
        )
        yield SummaryMetricFamily(
            "medianserve_ingest_latency_seconds",
            "From the handler's receipt of a request to its acceptance here.",
            count_value=counters.timed_requests,
            sum_value=counters.latency_seconds_total,
        )

    def _held(self) -> Iterator[Metric]:
        service, settings = self._service, self._service.settings
        for name, text, value, limit in (
            ("held_users", "Users with a score held, the history included",
             service.windows.active_users, settings.max_active_users),
            ("held_events", "Scores held in memory, the history included",
             service.windows.live_events, settings.max_live_events),
            ("batch_keys", "Keys remembered against duplicates", len(service.keys),
             settings.max_batch_keys),
            ("requests_in_flight", "Requests being read", service.requests_in_flight,
             settings.max_requests_in_flight),
            ("ingests_in_flight", "Requests on their way through /ingest", self._ingest.in_flight,
             settings.max_ingests_in_flight),
            ("requests_waiting", "Requests that wait for their commit", service.requests_waiting,
             settings.max_requests_in_flight),
        ):  # fmt: skip
            yield _gauge(name, f"{text}.", value)
            yield _gauge(f"{name}_limit", f"{text}, at most.", limit)
        if self.headcount.time is not None:
            yield _gauge("active_users", "Users with a score in the window.", self.headcount.users)
            yield _gauge("live_events", "Scores in the windows.", self.headcount.live_events)
            yield _gauge(
                "counted_timestamp_seconds", "When these were counted.", self.headcount.time
            )
        for name, told in (event_clock_of(service) or {}).items():
            if told is not None:
                yield _gauge(*_EVENT_CLOCK[name], told)
        yield _gauge("database_bytes", "Size of the database.", service.store.size_bytes())
        text = "Size of its write-ahead log"
        yield _gauge("wal_bytes", f"{text}.", service.store.log_bytes())
        yield _gauge("wal_bytes_limit", f"{text}, unless it is held.", LOG_BYTES)
        yield _gauge(
            "wal_held_seconds",
            "For how long the log could not be emptied; 0 while it can.",
            service.log_watch.held_seconds,
        )

    def _journal(self) -> Iterator[Metric]:
        service = self._service
        commits = service.commits
        yield _counter("journal_commits", "Group commits.", commits.commits)
        yield _counter("journal_failures", "Group commits that failed.", commits.failures)
        yield _gauge(
            "journal_failing", "1 when the last commit failed.", int(commits.error is not None)
        )
        yield _gauge("journal_rows", "Rows of the journal on disk.", service.journal.rows)
        yield _gauge("journal_bytes", "Size of these rows.", service.journal.bytes)
        restored = service.restored
        damaged = GaugeMetricFamily(
            "medianserve_damaged_records",
            "Records found damaged or gone at the start.",
            labels=["record"],
        )
        damaged.add_metric(["block"], restored.damaged_blocks)
        damaged.add_metric(["journal"], restored.damaged_journal_rows)
        yield damaged
        if restored.duration_seconds is not None:
            yield _gauge(
                "restore_duration_seconds",
                "How long restoring took at the start.",
                restored.duration_seconds,
            )

    def _snapshots(self) -> Iterator[Metric]:
        snapshots = self._service.snapshots
        yield _counter("snapshot_failures", "Snapshots that failed.", snapshots.failures)
        yield _gauge(
            "snapshot_failing", "1 when the last one failed.", int(snapshots.error is not None)
        )
        yield _gauge(
            "snapshot_interval_seconds",
            "Time between snapshots.",
            self._service.settings.snapshot_interval_seconds,
        )
        if snapshots.last_at is not None:
            yield _gauge(
                "snapshot_timestamp_seconds", "When the last snapshot was.", snapshots.last_at
            )
        if snapshots.last_duration_seconds is not None:
            yield _gauge(
                "snapshot_duration_seconds",
                "How long the last snapshot took.",
                snapshots.last_duration_seconds,
            )

    def _spools(self) -> Iterator[Metric]:
        spool = self._service.spools.summary()
        yield _gauge("spool_batches", "Batches in the handlers' spools.", spool["batches"])
        yield _gauge("spool_bytes", "Size of the handlers' spools on disk.", spool["bytes"])
        yield _gauge("spool_oldest_seconds", "Age of the oldest of them.", spool["oldest_seconds"])
        yield _gauge("spool_refused_batches", "Of these, not to be replayed.", spool["refused"])
        spooled = CounterMetricFamily(
            "medianserve_spool_events", "Events of the spools by fate.", labels=["outcome"]
        )
        spooled.add_metric(["spooled"], spool["spooled_events"])
        spooled.add_metric(["replayed"], spool["replayed_events"])
        spooled.add_metric(["expired"], spool["expired_events"])
        yield spooled


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"medianserve_{name}", text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"medianserve_{name}", text, value=value)
