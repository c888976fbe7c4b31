"""The pure rest: what answers mean, the ledger, the oracle, the histogram, the summary."""

import statistics
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator.latency import LatencyHistogram
from generator.ledger import BLOCK_EVENTS, Ledger
from generator.oracle import MedianItem, compare, exact_medians
from generator.outcomes import (
    RETRY_AFTER_LONGEST_SECONDS,
    Verdict,
    judge,
    retry_delay_seconds,
)
from generator.progress import RateMeter, progress_line
from generator.tally import Tally, count_reason
from generator.workload import Workload, WorkloadOptions

STORED = b'{"processed":2,"skipped":0,"recorded":"stored","scores":[0.5,null],"errors":[]}'


@pytest.mark.parametrize(
    ("status", "body", "verdict", "reason"),
    [
        (200, STORED, Verdict.ACKNOWLEDGED, ""),
        (200, STORED.replace(b"stored", b"spooled"), Verdict.ACKNOWLEDGED, ""),
        (200, STORED.replace(b"stored", b"nothing"), Verdict.ACKNOWLEDGED, ""),
        (200, STORED.replace(b"stored", b"dry_run"), Verdict.REFUSED, "recorded: dry_run"),
        (200, b"not JSON", Verdict.IN_DOUBT, "unreadable answer"),
        (200, STORED.replace(b",null", b""), Verdict.IN_DOUBT, "answer with a wrong number"),
        (503, b'{"code":"spool_full"}', Verdict.NOT_COUNTED, "503 spool_full"),
        (503, b'{"code":"not_confirmed"}', Verdict.IN_DOUBT, "503 not_confirmed"),
        (429, b"", Verdict.NOT_COUNTED, "429"),
        (400, b'{"code":"bad_json"}', Verdict.REFUSED, "400 bad_json"),
        (404, b'{"code":404,"type":"ModelNotFound"}', Verdict.REFUSED, "404 ModelNotFound"),
        (413, b"<html>", Verdict.REFUSED, "413"),
        (408, b"", Verdict.IN_DOUBT, "408"),
        (500, b"", Verdict.IN_DOUBT, "500"),
        (507, b'{"code":507,"type":"OutOfMemory"}', Verdict.IN_DOUBT, "507 OutOfMemory"),
    ],
)
def test_an_answer_means(status: int, body: bytes, verdict: Verdict, reason: str) -> None:
    outcome = judge(status, None, body, batch=2)
    assert outcome.verdict is verdict
    assert outcome.reason.startswith(reason)
    assert (outcome.answer is not None) == (verdict is Verdict.ACKNOWLEDGED)


def test_retry_delays_double_up_to_a_cap_and_are_spread_over_neighbours() -> None:
    delays = [retry_delay_seconds(attempt, 0, 0) for attempt in range(8)]
    assert delays[:4] == pytest.approx([0.05, 0.1, 0.2, 0.4])
    assert delays[-2] == delays[-1] == 1.5
    neighbours = {retry_delay_seconds(0, index, 0) for index in range(10)}
    assert len(neighbours) == 10
    assert all(0.05 <= delay <= 0.1 for delay in neighbours)


def test_retry_after_is_honoured_up_to_a_cap() -> None:
    assert judge(503, "2", b"", 1).retry_after_seconds == 2
    assert judge(503, "Wed, 21 Oct 2026 07:28:00 GMT", b"", 1).retry_after_seconds == 0
    assert retry_delay_seconds(0, 0, 2) == 2
    assert retry_delay_seconds(0, 0, 3600) == RETRY_AFTER_LONGEST_SECONDS


events = st.lists(
    st.tuples(st.integers(0, 4), st.floats(allow_nan=False, allow_infinity=False, width=32))
)


@given(events)
def test_the_oracle_is_statistics_median_to_the_last_bit(drawn: list[tuple[int, float]]) -> None:
    users = np.array([user for user, _ in drawn], np.int32)
    scores = np.array([score for _, score in drawn], np.float64)
    oracle = exact_medians(users, scores, 5)
    for user in range(5):
        mine = [score for owner, score in drawn if owner == user]
        assert oracle.median(user) == (statistics.median(mine) if mine else None)
        assert oracle.counts[user] == len(mine)


@pytest.mark.parametrize(
    ("median", "count"), [(2.0, 4), (2.5, 3), (np.nextafter(2.5, 3), 4), (None, 0), (None, 4)]
)
def test_a_median_off_by_one_bit_or_a_count_off_by_one_is_a_mismatch(
    median: float | None, count: int
) -> None:
    workload = Workload(WorkloadOptions(seed=0, users=1, batch=1, user_prefix="p"))
    users = np.array([0], np.int32)
    oracle = exact_medians(np.zeros(4, np.int32), np.array([4.0, 1.0, 2.0, 3.0]), 1)
    right = MedianItem("p-0", 2.5, 4, 60.0)
    assert compare(oracle, users, [right], workload) == []
    [mismatch] = compare(oracle, users, [MedianItem("p-0", median, count, 60.0)], workload)
    assert (mismatch.expected_median, mismatch.expected_count) == (2.5, 4)
    assert (mismatch.got_median, mismatch.got_count) == (median, count)


def test_the_ledger_forgets_what_no_window_can_hold_and_nothing_else() -> None:
    ledger = Ledger(users=3, keep_seconds=60)
    size = BLOCK_EVENTS // 4
    users = np.ones(size, np.int32)
    for second in range(400):
        now = 1000.0 + second
        ledger.acknowledge(users, np.full(size, now), np.full(size, float(second)))
        ledger.forget(now)
        assert ledger.kept_events <= 70 * size
    _, scores = ledger.between(1399.0 - 60, 1399.0)
    assert np.unique(scores).tolist() == list(range(339, 400))
    assert len(scores) == 61 * size


def test_a_user_in_doubt_is_counted_and_not_compared() -> None:
    ledger = Ledger(users=5, keep_seconds=60)
    ledger.sent(np.array([0, 2, 4], np.int32))
    ledger.doubt(np.array([2, 2], np.int32))
    assert ledger.comparable_users.tolist() == [0, 4]
    assert ledger.users_in_doubt == 1


def test_percentiles_are_three_digits_exact_and_the_maximum_exact() -> None:
    histogram = LatencyHistogram()
    assert histogram.summary().p50 is None
    for millisecond in range(1, 1001):
        histogram.record(millisecond / 1000)
    summary = histogram.summary()
    assert summary.p50 == pytest.approx(500, rel=0.002)
    assert summary.p95 == pytest.approx(950, rel=0.002)
    assert summary.p99 == pytest.approx(990, rel=0.002)
    assert summary.max == 1000
    histogram.record(7200.0)
    assert histogram.summary().max == 7_200_000


def test_a_service_that_invents_reasons_cannot_grow_the_counter() -> None:
    counter: Counter[str] = Counter()
    for number in range(1000):
        count_reason(counter, f"500 {number}")
    assert len(counter) <= 51
    assert counter.total() == 1000


def test_progress_shows_the_rate_since_the_last_reading() -> None:
    meter = RateMeter(10.0)
    assert meter.read(100, 12.0) == 50
    assert meter.read(400, 13.0) == 300
    line = progress_line(Tally(accepted_events=400), 300, 5000)
    assert "400 events" in line
    assert "300/5,000 a second" in line
