"""What the live page is told, computed: rates, and how things are in sentences."""

from typing import Any

import pytest

from state_service.outcomes import Outcomes
from state_service.overview import Reading, TorchServeStatus, conditions, rates
from state_service.settings import Settings
from state_service.status import Counters

HEALTHY = TorchServeStatus(state="healthy", workers=2, workers_ready=2)


def stats(**changes: Any) -> Any:
    """Return the part of /stats that is judged, of a service that is well."""
    body: dict[str, Any] = {
        "phase": "ready",
        "events_processed": 10,
        "held_events": 10,
        "held_users": 2,
        "event_clock": {"time": 1e9, "behind_seconds": 9.0, "waiting_seconds": 0.0},
        "window_seconds": 300.0,
        "loop_lag_seconds": 0.001,
        "journal": {"error": None},
        "snapshot": {"error": None},
        "wal": {"bytes": 4096, "held_seconds": 0.0, "held_by": None},
        "spool": {"batches": 0, "refused": 0, "oldest_seconds": 0.0, "expired_events": 0},
        "restore": {
            "segments_done": 3, "segments_total": 62, "journal_rows_total": 0,
            "journal_rows_done": 0, "damaged_blocks": 0, "damaged_journal_rows": 0,
        },
    }  # fmt: skip
    for name, value in changes.items():
        body[name] = body[name] | value if isinstance(value, dict) else value
    return body


def test_rates_are_what_the_counters_grew_by() -> None:
    counters = Counters()
    before = Reading.of(counters, 100.0, 5.0)
    counters.accepted, counters.late, counters.ingest_requests = 900, 100, 20
    counters.median_requests, counters.timed_requests = 4, 10
    counters.latency_seconds_total = 0.25
    between = rates(before, Reading.of(counters, 102.0, 7.0))
    assert between.time == 102.0
    assert between.events_per_second == 500
    assert between.requests_per_second == 10
    assert between.medians_per_second == 2
    assert between.ingest_latency_seconds == 0.025


def test_without_time_or_requests_there_is_no_rate() -> None:
    reading = Reading.of(Counters(accepted=5), 100.0, 5.0)
    assert rates(reading, reading).events_per_second == 0
    assert rates(reading, reading).ingest_latency_seconds is None


@pytest.mark.parametrize(
    ("changes", "torchserve", "level", "words"),
    [
        ({}, HEALTHY, "good", "All is well"),
        ({"events_processed": 0, "held_events": 0}, HEALTHY, "waiting", "first event"),
        ({"events_processed": 0}, HEALTHY, "good", "All is well"),  # restored ones are there
        ({"phase": "restoring"}, HEALTHY, "waiting", "3 of 62 segments."),
        ({"phase": "stopping"}, HEALTHY, "warning", "Stopping"),
        ({"journal": {"error": "no room"}}, HEALTHY, "bad", "no room"),
        ({"snapshot": {"error": "no room"}}, HEALTHY, "warning", "Snapshots fail: no room"),
        (
            {"wal": {"bytes": 51 << 20, "held_seconds": 27.2, "held_by": "another program"}},
            HEALTHY,
            "warning",
            "for 27 s and has 51 MiB: another program.",
        ),
        ({"restore": {"damaged_blocks": 2}}, HEALTHY, "warning", "2 damaged"),
        ({"held_events": 46_000_000}, HEALTHY, "warning", "46,000,000 of 50,000,000 scores"),
        ({"held_users": 5_000_000}, HEALTHY, "warning", "5,000,000 of 5,000,000 users"),
        ({"loop_lag_seconds": 0.4}, HEALTHY, "warning", "0.40 s"),
        (
            {"event_clock": {"waiting_seconds": 301.0}},
            HEALTHY,
            "warning",
            "301 s ahead of the replay",
        ),
        ({"spool": {"batches": 1, "oldest_seconds": 9.0}}, HEALTHY, "warning", "1 request waits"),
        ({"spool": {"batches": 1, "refused": 1}}, HEALTHY, "warning", "1 in the spool"),
        ({"spool": {"expired_events": 5}}, HEALTHY, "bad", "5 events expired"),
        ({}, TorchServeStatus(), "good", "All is well"),
        ({}, TorchServeStatus(state="away", detail="no answer"), "bad", "away: no answer"),
        ({}, TorchServeStatus(state="unhealthy", detail="x"), "bad", "does not score: x"),
        (
            {},
            TorchServeStatus(state="healthy", workers=3, workers_ready=1),
            "warning",
            "1 of TorchServe's 3",
        ),
    ],
)
def test_each_condition_has_its_sentence(
    changes: Any, torchserve: TorchServeStatus, level: str, words: str
) -> None:
    (condition,) = conditions(stats(**changes), torchserve, Settings(), Outcomes(accepted=10))
    assert condition.level == level
    assert words in condition.sentence
    assert condition.sentence.endswith(".")


def test_the_worst_comes_first() -> None:
    levels = [
        condition.level
        for condition in conditions(
            stats(phase="restoring", snapshot={"error": "x"}, journal={"error": "y"}),
            HEALTHY,
            Settings(),
            Outcomes(accepted=10),
        )
    ]
    assert levels == ["bad", "warning", "waiting"]


@pytest.mark.parametrize(
    ("recent", "level", "words"),
    [
        (Outcomes(), "waiting", "no event has come for five minutes"),
        (Outcomes(accepted=90_000), "good", "All is well: every"),
        (Outcomes(skipped=13_721), "bad", "13,721 of 13,721 events of the last five minutes"),
        (Outcomes(skipped=13_721), "bad", "13,721 malformed. The answers' errors say"),
        (Outcomes(future=600, skipped=1), "bad", "1 malformed, 600 ahead of the clock. A clock"),
        (Outcomes(accepted=190, late=10), "bad", "10 older than the window. A producer lags"),
        (Outcomes(accepted=990, late=10), "warning", "10 of 1,000 events"),
        (Outcomes(skipped=9), "warning", "9 of 9 events of the last five minutes are in no median"),
        (Outcomes(accepted=1, skipped=9), "good", "All is well, but for 9 of 10 events"),
        (Outcomes(accepted=9_901, late=99), "good", "All is well, but for 99 of 10,000 events"),
        (Outcomes(accepted=10, duplicates=40), "warning", "40 of 50 events of the last five"),
        (Outcomes(accepted=10, duplicates=40), "warning", "a key of its own."),
        (Outcomes(forgotten=40), "warning", "40 of before their users were forgotten."),
        (Outcomes(accepted=50, duplicates=40), "good", "All is well: every"),
    ],
)
def test_events_that_are_in_no_median_are_told(recent: Outcomes, level: str, words: str) -> None:
    (condition,) = conditions(stats(), HEALTHY, Settings(), recent)
    assert condition.level == level
    assert words in condition.sentence
    assert condition.sentence.endswith(".")
