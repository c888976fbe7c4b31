"""Faults of a real state service, and the alert that each of them fires."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.alerts.alerts_support import FaultyState
    from tests.alerts.conftest import Prometheus

    Start = Callable[..., Prometheus]


def test_a_state_service_that_dies_and_comes_back(
    start_state_service: "Callable[..., FaultyState]", start_prometheus: "Start"
) -> None:
    state = start_state_service()
    prometheus = start_prometheus(state.url)
    prometheus.wait_for("first scrape", lambda: prometheus.query("medianserve_ready == 1"))
    assert prometheus.alerts() == {}
    state.kill()
    said = prometheus.wait_until_fires("MedianserveStateServiceDown")
    assert state.url.removeprefix("http://") in said["summary"]
    state.start()
    prometheus.wait_until_resolved("MedianserveStateServiceDown")


def test_a_restart_that_takes_its_time(
    start_state_service: "Callable[..., FaultyState]", start_prometheus: "Start"
) -> None:
    state = start_state_service("--snapshot-interval-seconds", "3600")
    for number in range(16):
        state.record(f"key {number}")
    state.kill()
    state.start_slowly(0.5)
    prometheus = start_prometheus(state.url)
    prometheus.wait_until_fires("MedianserveStateServiceNotReady")
    assert set(prometheus.alerts()) == {"MedianserveStateServiceNotReady"}
    prometheus.wait_until_resolved("MedianserveStateServiceNotReady")


def test_a_service_that_gets_no_processor(
    start_state_service: "Callable[..., FaultyState]", start_prometheus: "Start"
) -> None:
    state = start_state_service()
    prometheus = start_prometheus(state.url)
    prometheus.wait_until_fires("MedianserveEventLoopLag", lambda: state.pause(0.5))
    prometheus.wait_until_resolved("MedianserveEventLoopLag")


def test_a_database_that_is_taken_away_and_given_back(
    start_state_service: "Callable[..., FaultyState]", start_prometheus: "Start", tmp_path: Path
) -> None:
    state = start_state_service("--snapshot-interval-seconds", "0.5")
    prometheus = start_prometheus(state.url)
    state.record("first")
    prometheus.wait_for(
        "snapshot", lambda: prometheus.query("medianserve_snapshot_timestamp_seconds")
    )
    (tmp_path / "state.db").rename(tmp_path / "taken")

    def more() -> None:
        assert state.record(f"refused {time.time()}").status == 503

    prometheus.wait_until_fires("MedianserveJournalFailing", more)
    prometheus.wait_until_fires("MedianserveStateServiceErrors", more)
    prometheus.wait_until_fires("MedianserveSnapshotOld", more)
    (tmp_path / "taken").rename(tmp_path / "state.db")
    prometheus.wait_until_resolved("MedianserveJournalFailing")
    prometheus.wait_until_resolved("MedianserveSnapshotOld")
    assert state.record("last").status == 200


@pytest.mark.parametrize(
    ("alert", "offset_seconds"),
    [("MedianserveManyLateEvents", -999.0), ("MedianserveManyFutureEvents", 999.0)],
)
def test_events_of_another_time(
    start_state_service: "Callable[..., FaultyState]",
    start_prometheus: "Start",
    alert: str,
    offset_seconds: float,
) -> None:
    state = start_state_service()
    prometheus = start_prometheus(state.url)
    sent = 0

    def more() -> None:
        nonlocal sent
        sent += 1
        times = [time.time()] * 4 + [time.time() + offset_seconds]
        assert state.record(f"key {sent}", times).status == 200

    prometheus.wait_until_fires(alert, more)
    assert set(prometheus.alerts()) == {alert}


def test_requests_of_which_every_event_is_malformed(
    start_state_service: "Callable[..., FaultyState]", start_prometheus: "Start"
) -> None:
    state = start_state_service()
    prometheus = start_prometheus(state.url)
    prometheus.wait_for("first scrape", lambda: prometheus.query("medianserve_events_total == 0"))
    assert state.record("burst", [], skipped=13_721).status == 200
    said = prometheus.wait_until_fires("MedianserveEventsLeftOut")
    assert said["summary"].startswith("100% of the events at ")
    prometheus.wait_until_fires("MedianserveManySkippedEvents")
    prometheus.wait_until_resolved("MedianserveEventsLeftOut")


def test_a_producer_that_gives_one_key_to_all_its_requests(
    start_state_service: "Callable[..., FaultyState]", start_prometheus: "Start"
) -> None:
    state = start_state_service()
    prometheus = start_prometheus(state.url)
    prometheus.wait_until_fires("MedianserveManyRepeatedEvents", lambda: state.record("one"))
    assert set(prometheus.alerts()) == {"MedianserveManyRepeatedEvents"}


def test_a_reader_that_keeps_the_log_from_being_emptied(
    start_state_service: "Callable[..., FaultyState]", start_prometheus: "Start", tmp_path: Path
) -> None:
    state = start_state_service()
    prometheus = start_prometheus(state.url)
    assert state.record("first").status == 200
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as reader:
        reader.execute("BEGIN").close()
        reader.execute("SELECT count(*) FROM journal").fetchone()
        for number in range(20):  # of half a megabyte each
            assert state.record(f"large {number}", [time.time()] * 30_000).status == 200
        prometheus.wait_until_fires("MedianserveWalHeld")
        assert state.record("still taken").status == 200
    prometheus.wait_until_resolved("MedianserveWalHeld")


def test_a_bound_that_comes_close_is_named(
    start_state_service: "Callable[..., FaultyState]", start_prometheus: "Start"
) -> None:
    state = start_state_service("--max-batch-keys", "10")
    prometheus = start_prometheus(state.url)
    for number in range(9):
        assert state.record(f"key {number}").status == 200
    said: Any = prometheus.wait_until_fires("MedianserveCloseToLimit")
    assert said["summary"].endswith("is at 90% of max_batch_keys")
    assert set(prometheus.alerts()) == {"MedianserveCloseToLimit"}


def test_damage_that_is_found_at_the_start(
    start_state_service: "Callable[..., FaultyState]", start_prometheus: "Start"
) -> None:
    state = start_state_service("--snapshot-interval-seconds", "3600")
    state.record("one")
    state.record("two")
    state.kill()
    state.damage_journal()
    state.start()
    prometheus = start_prometheus(state.url)
    said = prometheus.wait_until_fires("MedianserveDamagedRecords")
    assert said["summary"].startswith("1 damaged records were found")
