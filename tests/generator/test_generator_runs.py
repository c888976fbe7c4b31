"""Whole runs against a real server that has its faults."""

import re
from dataclasses import replace
from typing import Any

import pytest

from generator.encoding import Format
from generator.errors import UnreachableError
from generator.reporting import exit_code, summary
from generator.running import run
from tests.generator.generator_fake_services import FakeServices, Fault, serving, small_run


async def test_the_same_seed_and_prefix_send_the_same_events() -> None:
    stamp = re.compile(rb'"timestamp":[\d.]+')
    sent = []
    for _ in range(2):
        async with serving(FakeServices()) as services:
            await run(replace(small_run(services), duration_seconds=0.1, verify=False))
            sent.append(sorted(stamp.sub(b"", body) for body in services.bodies))
    assert len(sent[0]) == 10
    assert sent[0] == sent[1]


@pytest.mark.parametrize(
    ("form", "content_type"),
    [
        ("json", "application/json"),
        ("ndjson", "application/x-ndjson"),
        ("arrow", "application/vnd.apache.arrow.stream"),
    ],
)
async def test_a_run_in_each_format_sends_its_type_and_verifies(
    form: Format, content_type: str
) -> None:
    async with serving(FakeServices()) as services:
        options = small_run(services)
        workload = replace(options.workload, format=form)
        result = await run(replace(options, duration_seconds=0.1, workload=workload))
    assert exit_code(result) == 0, summary(result)
    assert services.content_types == {content_type}
    assert services.dry_runs == 1
    assert result.accepted_events == 100


async def test_two_runs_never_share_an_idempotency_key() -> None:
    async with serving(FakeServices()) as services:
        options = replace(small_run(services), duration_seconds=0.1, verify=False)
        await run(options)
        await run(options)
    assert len(set(services.keys)) == services.attempts == 20


async def test_503_is_retried_with_the_same_key_and_bytes_and_reported() -> None:
    def fault(attempt: int) -> Fault:
        return "unavailable" if attempt % 5 == 0 else "none"

    async with serving(FakeServices(fault=fault)) as services:
        result = await run(replace(small_run(services), retries=8))
    assert exit_code(result) == 0, summary(result)
    assert result.failed_requests == 0
    assert result.accepted_events == result.sent_events == 500
    assert result.retries == services.attempts - 50 > 0
    assert 0 < result.retried_requests <= result.retries
    assert result.attempt_failures == {"503 spool_full": result.retries}
    assert len(set(services.keys)) == 50
    assert len(set(zip(services.keys, services.bodies, strict=True))) == 50


async def test_a_service_that_stays_unavailable_fails_requests_but_leaves_no_doubt() -> None:
    async with serving(FakeServices(fault=lambda _: "unavailable")) as services:
        result = await run(replace(small_run(services), duration_seconds=0.1, retries=1))
    assert exit_code(result) == 1
    assert result.failed_requests == 10
    assert result.in_doubt_requests == 0
    assert result.retries == 10
    assert result.latency_ms.p50 is None
    assert result.verify is not None
    assert (result.verify.mismatches, result.verify.users_in_doubt) == (0, 0)
    assert result.verify.users_checked > 0


@pytest.mark.parametrize("kind", ["drop before", "drop after", "full"])
async def test_what_was_in_doubt_is_settled_by_a_retry(kind: Fault) -> None:
    def fault(attempt: int) -> Fault:
        return kind if attempt % 4 == 0 else "none"

    async with serving(FakeServices(fault=fault)) as services:
        result = await run(replace(small_run(services), retries=10))
    assert exit_code(result) == 0, summary(result)
    assert result.retried_requests > 0
    assert "retried" in summary(result)


async def test_users_left_in_doubt_are_listed_not_dropped_and_exit_is_1() -> None:
    def fault(attempt: int) -> Fault:
        return "drop after" if attempt == 3 else "none"

    async with serving(FakeServices(fault=fault)) as services:
        result = await run(replace(small_run(services), retries=0))
    assert exit_code(result) == 1
    assert result.failed_requests == result.in_doubt_requests == 1
    assert result.failures == {"connection dropped": 1}
    assert result.accepted_events == 490
    verdict = result.verify
    assert verdict is not None
    assert verdict.mismatches == 0
    assert 0 < verdict.users_in_doubt <= 10
    assert verdict.users_checked + verdict.users_in_doubt == len(services.events)
    assert "not compared" in summary(result)


async def test_doubt_stays_when_the_last_attempt_was_surely_not_counted() -> None:
    def fault(attempt: int) -> Fault:
        return "drop after" if attempt == 0 else "unavailable"

    async with serving(FakeServices(fault=fault)) as services:
        options = replace(small_run(services), duration_seconds=0.01, retries=1)
        result = await run(options)
    assert result.failures == {"503 spool_full": 1}
    assert result.in_doubt_requests == 1


async def test_refused_requests_are_not_retried_and_their_users_still_compared() -> None:
    def fault(attempt: int) -> Fault:
        return "refuse" if attempt == 3 else "none"

    async with serving(FakeServices(fault=fault)) as services:
        result = await run(small_run(services))
    assert exit_code(result) == 1
    assert services.attempts == 50
    text = summary(result)
    assert "1 failed (1 x 413 too_many_events), 0 of them in doubt" in text
    assert "exactly the expected median" in text


async def test_a_timeout_leaves_a_request_in_doubt() -> None:
    def fault(attempt: int) -> Fault:
        return "stall" if attempt == 3 else "none"

    async with serving(FakeServices(fault=fault, stall_seconds=1)) as services:
        result = await run(replace(small_run(services), timeout_seconds=0.3, retries=0))
    assert exit_code(result) == 1
    assert "1 failed (1 x timeout), 1 of them in doubt" in summary(result)


async def test_skipped_events_are_counted_and_outside_the_oracle() -> None:
    async with serving(FakeServices(skip_every=5)) as services:
        result = await run(small_run(services))
    assert exit_code(result) == 0, summary(result)
    assert result.skipped_events == 100
    assert result.accepted_events == 400
    assert result.verify is not None
    assert result.verify.mismatches == 0


async def test_spooled_events_leave_their_users_in_doubt() -> None:
    def fault(attempt: int) -> Fault:
        return "spool" if attempt == 3 else "none"

    async with serving(FakeServices(fault=fault)) as services:
        result = await run(small_run(services))
    assert exit_code(result) == 0
    assert result.spooled_events == 10
    assert result.verify is not None
    assert 0 < result.verify.users_in_doubt <= 10


async def test_a_verification_that_could_compare_nobody_is_no_success() -> None:
    async with serving(FakeServices(fault=lambda _: "spool")) as services:
        result = await run(replace(small_run(services), duration_seconds=0.05))
    assert result.failed_requests == 0
    assert exit_code(result) == 1
    assert "NOT VERIFIED: no user could be compared" in summary(result)


async def test_a_run_longer_than_the_window_verifies_with_disorder_too() -> None:
    async with serving(FakeServices(window_seconds=0.6)) as services:
        options = small_run(services)
        disorderly = replace(options.workload, disorder_seconds=0.5)
        result = await run(replace(options, workload=disorderly, duration_seconds=1.2))
    assert exit_code(result) == 0, summary(result)
    assert result.accepted_events == 1200
    assert result.verify is not None
    assert result.verify.window_seconds == 0.6


async def test_latency_counts_from_the_due_time_while_the_server_stalls() -> None:
    def fault(attempt: int) -> Fault:
        return "stall" if attempt == 0 else "none"

    async with serving(FakeServices(fault=fault, stall_seconds=0.4)) as services:
        result = await run(replace(small_run(services), max_in_flight=1))
    # One request stalled; all those due behind it waited, and that is what the clients feel.
    assert result.latency_ms.max is not None
    assert result.latency_ms.max >= 390
    assert result.latency_ms.p50 is not None
    assert result.latency_ms.p50 >= 100
    assert result.start_lag_ms.max is not None
    assert result.start_lag_ms.max >= 300
    assert result.accepted_events == 500
    assert services.most_in_progress == 1


async def test_requests_leave_when_due_whether_or_not_earlier_ones_answered() -> None:
    async with serving(FakeServices(fault=lambda _: "stall", stall_seconds=3.0)) as services:
        result = await run(small_run(services))
    assert exit_code(result) == 0
    assert services.most_in_progress == 50


async def test_a_rate_that_is_not_held_is_said_so_and_the_rest_is_never_sent() -> None:
    async with serving(FakeServices(fault=lambda _: "stall", stall_seconds=0.1)) as services:
        result = await run(replace(small_run(services), max_in_flight=1, drain_seconds=0.1))
    assert exit_code(result) == 0
    assert "NOT held" in summary(result)
    assert services.attempts < 10
    assert result.unsent_events == 500 - 10 * services.attempts
    assert "never sent" in summary(result)


async def test_a_state_service_that_breaks_is_no_verdict_and_exit_is_1() -> None:
    def distort(item: dict[str, Any]) -> None:
        if item["count"]:
            raise RuntimeError

    async with serving(FakeServices(distort=distort)) as services:
        result = await run(replace(small_run(services), duration_seconds=0.1))
    assert exit_code(result) == 1
    assert "NOT VERIFIED" in summary(result)
    assert "answered 500" in summary(result)


async def test_medians_are_asked_for_in_pages_at_one_instant() -> None:
    async with serving(FakeServices()) as services:
        options = small_run(services)
        crowd = replace(options.workload, users=1_000_000, batch=15_000, popularity="uniform")
        result = await run(replace(options, workload=crowd, rate=15_000, duration_seconds=1))
    assert exit_code(result) == 0, summary(result)
    assert result.verify is not None
    assert result.verify.users_checked == len(services.events) > 10_000
    assert services.median_requests == 1 + 2
    assert len(services.instants - {None}) == 1


async def test_tokens_are_sent_each_to_its_own_service() -> None:
    async with serving(FakeServices()) as services:
        options = replace(small_run(services), duration_seconds=0.05)
        await run(replace(options, token="one", state_token="two"))
    assert services.authorizations == {"/predictions/scorer Bearer one", "/medians Bearer two"}


async def test_an_unreachable_state_service_is_found_before_anything_is_sent() -> None:
    async with serving(FakeServices()) as services:
        with pytest.raises(UnreachableError, match=r"http://127.0.0.1:9/medians .*--state-url"):
            await run(replace(small_run(services), state_url="http://127.0.0.1:9"))
    assert services.attempts == 0


async def test_an_address_without_the_model_is_found_before_anything_is_sent() -> None:
    async with serving(FakeServices()) as services:
        with pytest.raises(UnreachableError, match=r"/elsewhere/.*404"):
            await run(replace(small_run(services), url=services.url + "/elsewhere"))


async def test_a_model_that_takes_other_events_is_found_before_anything_is_sent() -> None:
    async with serving(FakeServices(skip_every=1)) as services:
        with pytest.raises(UnreachableError, match="serve a model of 3 features"):
            await run(small_run(services))
    assert services.attempts == 0
