"""The service's numbers for Prometheus, read when asked for: the hot path pays nothing."""

from collections.abc import Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.aiohttp import make_aiohttp_handler
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from state_service.app_keys import SERVICE
from state_service.service import StateService


def add_metrics(app: web.Application) -> None:
    """Serve `/metrics`."""
    registry = CollectorRegistry()
    registry.register(_ServiceCollector(app[SERVICE]))
    registry.register(app[SERVICE].stages.histogram)
    app.router.add_get("/metrics", make_aiohttp_handler(registry))


class _ServiceCollector(Collector):
    """Reads one service's counters. No label ever holds a user id."""

    def __init__(self, service: StateService) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        service = self._service
        counters = service.counters
        yield _counter("ingest_requests", "Client requests counted.", counters.ingest_requests)
        events = CounterMetricFamily(
            "medianserve_events", "Events by what became of them.", labels=["outcome"]
        )
        for outcome in ("accepted", "late", "future", "duplicates", "skipped"):
            events.add_metric([outcome], getattr(counters, outcome))
        yield events
        yield _counter("median_requests", "Questions for medians.", counters.median_requests)
        yield _counter("requests_refused", "Answers 4xx and 5xx.", counters.requests_refused)
        yield SummaryMetricFamily(
            "medianserve_ingest_latency_seconds",
            "From the handler's receipt of a request to its acceptance here.",
            count_value=counters.timed_requests,
            sum_value=counters.latency_seconds_total,
        )
        yield _gauge("active_users", "Users with a score held.", service.windows.active_users)
        yield _gauge("live_events", "Scores held in memory.", service.windows.live_events)
        yield _gauge("batch_keys", "Keys remembered against duplicates.", len(service.keys))
        yield _gauge("requests_in_flight", "Requests being read.", service.requests_in_flight)
        yield _gauge("ready", "1 when requests are served.", int(service.phase == "ready"))
        yield _gauge("database_bytes", "Size of the database.", service.store.size_bytes())
        yield _gauge(
            "loop_lag_seconds",
            "Longest wait for the event loop in the last 10 seconds.",
            service.loop_lag.worst_seconds,
        )
        spool = service.spools.summary()
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
        commits = service.commits
        yield _counter("journal_commits", "Group commits.", commits.commits)
        yield _counter("journal_failures", "Group commits that failed.", commits.failures)
        yield _gauge("journal_rows", "Rows of the journal on disk.", service.journal.rows)
        restored = service.restored
        damaged = GaugeMetricFamily(
            "medianserve_damaged_records",
            "Records found damaged or gone at the start.",
            labels=["record"],
        )
        damaged.add_metric(["block"], restored.damaged_blocks)
        damaged.add_metric(["journal"], restored.damaged_journal_rows)
        yield damaged
        snapshots = service.snapshots
        yield _counter("snapshot_failures", "Snapshots that failed.", snapshots.failures)
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


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"medianserve_{name}", text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"medianserve_{name}", text, value=value)
