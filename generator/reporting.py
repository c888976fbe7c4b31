"""The result for people (a summary) and for programs (a JSON document). Pure."""

from collections import Counter

import msgspec

from generator.latency import LatencyMilliseconds
from generator.options import RunOptions
from generator.oracle import Mismatch, Verification
from generator.tally import Tally

RATE_HELD_SHARE = 0.99


class Report(msgspec.Struct):
    """The JSON document. Rates in events a second; counts of retried requests count each once.

    `failures` has the failed requests by reason, `attempt_failures` all failed attempts, also
    those that a retry made good. `verify` is null unless asked for.
    """

    sent_events: int
    accepted_events: int
    failed_requests: int
    target_rate: float
    achieved_rate: float
    latency_ms: LatencyMilliseconds
    verify: Verification | None
    interrupted: bool
    elapsed_seconds: float
    sent_requests: int
    accepted_requests: int
    in_doubt_requests: int
    retried_requests: int
    retries: int
    skipped_events: int
    late_events: int
    future_events: int
    spooled_events: int
    unsent_events: int
    start_lag_ms: LatencyMilliseconds
    failures: dict[str, int]
    attempt_failures: dict[str, int]
    seed: int
    user_prefix: str


def report(options: RunOptions, tally: Tally, verification: Verification | None) -> Report:
    """Gather a finished run's numbers."""
    return Report(
        sent_events=tally.sent_events,
        accepted_events=tally.accepted_events,
        failed_requests=tally.failed_requests,
        target_rate=options.rate,
        achieved_rate=round(tally.achieved_rate, 3),
        latency_ms=tally.latency.summary(),
        verify=verification,
        interrupted=tally.interrupted,
        elapsed_seconds=round(tally.elapsed_seconds, 6),
        sent_requests=tally.sent_requests,
        accepted_requests=tally.accepted_requests,
        in_doubt_requests=tally.in_doubt_requests,
        retried_requests=tally.retried_requests,
        retries=tally.retries,
        skipped_events=tally.skipped_events,
        late_events=tally.late_events,
        future_events=tally.future_events,
        spooled_events=tally.spooled_events,
        unsent_events=tally.unsent_events,
        start_lag_ms=tally.start_lag.summary(),
        failures=_by_count(tally.failures),
        attempt_failures=_by_count(tally.attempt_failures),
        seed=options.workload.seed,
        user_prefix=options.workload.user_prefix,
    )


def to_json(result: Report) -> bytes:
    """Render the document, indented, ending in a newline."""
    return msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n"


def exit_code(result: Report) -> int:
    """Give 130 when interrupted, 1 when anything failed or differs, else 0."""
    if result.interrupted:
        return 130
    verdict = result.verify
    wrong = verdict is not None and (
        verdict.mismatches or verdict.error or (result.sent_events and not verdict.users_checked)
    )
    useless = result.sent_events and not result.accepted_events
    return 1 if wrong or useless or result.failed_requests else 0


def summary(result: Report) -> str:
    """Render the result for a person."""
    lines = ["interrupted: the numbers cover what was sent before"] if result.interrupted else []
    lines += [
        _row("events", _events(result)),
        _row("rate", _rate(result)),
        _row("latency", _latency(result.latency_ms) + ", from due to acknowledged"),
        _row("start lag", _latency(result.start_lag_ms) + ", from due to sent"),
        _row("requests", _requests(result)),
    ]
    if result.retries:
        again = f"{result.retried_requests:,} requests, {result.retries:,} further attempts"
        lines.append(_row("retried", again))
    if result.attempt_failures:
        reasons = (f"{count:,} x {reason}" for reason, count in result.attempt_failures.items())
        lines.append(_row("attempts failed", ", ".join(reasons)))
    if result.verify is not None:
        lines += _verdict(result.verify)
    return "\n".join(lines)


def _row(name: str, text: str) -> str:
    return f"{name:<16}{text}"


def _events(result: Report) -> str:
    parts = [f"{result.sent_events:,} sent", f"{result.accepted_events:,} accepted"]
    extras = {
        "skipped": result.skipped_events,
        "late": result.late_events,
        "future": result.future_events,
        "spooled": result.spooled_events,
        "never sent": result.unsent_events,
    }
    return ", ".join(parts + [f"{count:,} {name}" for name, count in extras.items() if count])


def _rate(result: Report) -> str:
    text = f"{result.achieved_rate:,.1f} of {result.target_rate:,.1f} events a second"
    if result.interrupted or result.achieved_rate >= RATE_HELD_SHARE * result.target_rate:
        return text
    share = result.achieved_rate / result.target_rate
    return f"{text}: the target was NOT held ({share:.0%})"


def _latency(latency: LatencyMilliseconds) -> str:
    if latency.max is None:
        return "nothing measured"
    named = {"p50": latency.p50, "p95": latency.p95, "p99": latency.p99, "max": latency.max}
    return "  ".join(f"{name} {value:,.1f} ms" for name, value in named.items())


def _requests(result: Report) -> str:
    text = f"{result.sent_requests:,} sent, {result.failed_requests:,} failed"
    if not result.failed_requests:
        return text
    reasons = ", ".join(f"{count:,} x {reason}" for reason, count in result.failures.items())
    return f"{text} ({reasons}), {result.in_doubt_requests:,} of them in doubt"


def _verdict(verdict: Verification) -> list[str]:
    if verdict.error:
        return [_row("verify", f"NOT VERIFIED: {verdict.error}")]
    lines = []
    if verdict.mismatches:
        text = f"{verdict.mismatches:,} of {verdict.users_checked:,} users WRONG"
    elif verdict.users_checked:
        text = f"all {verdict.users_checked:,} users have exactly the expected median and count"
    else:
        text = "NOT VERIFIED: no user could be compared"
    lines.append(_row("verify", text))
    if verdict.users_in_doubt:
        doubt = f"{verdict.users_in_doubt:,} users not compared: some of their events may count"
        lines.append(_row("", doubt))
    lines += [_row("", _mismatch(mismatch)) for mismatch in verdict.first_mismatches]
    hidden = verdict.mismatches - len(verdict.first_mismatches)
    if hidden:
        lines.append(_row("", f"and {hidden:,} more"))
    return lines


def _mismatch(wrong: Mismatch) -> str:
    return (
        f"{wrong.user_id}: expected {wrong.expected_median!r} of {wrong.expected_count} scores, "
        f"got {wrong.got_median!r} of {wrong.got_count}"
    )


def _by_count(counter: Counter[str]) -> dict[str, int]:
    return dict(counter.most_common())
