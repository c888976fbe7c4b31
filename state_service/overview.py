"""What the live page shows, computed from the service's numbers. Pure.

Every figure comes from `stats`, which is what `GET /stats` answers, and from two readings of the
counters: a rate is what they grew by between the two.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from state_service.outcomes import Outcomes, judge
from state_service.ranking import Ranked
from state_service.settings import Settings
from state_service.status import Counters

_ALMOST_FULL = 0.9
_LONG_LAG_SECONDS = 0.25


class TorchServeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of TorchServe; None for what was not asked or not answered."""

    state: Literal["not_asked", "healthy", "unhealthy", "away"] = "not_asked"
    detail: str | None = None
    version: str | None = None
    workers: int | None = None
    workers_ready: int | None = None
    queue_pending: int | None = None
    queue_room: int | None = None
    port: int = 8080  # where it takes predictions


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The counters at one moment: `time` for people, `monotonic` to divide by, both in seconds."""

    time: float
    monotonic: float
    events: int
    requests: int
    medians: int
    timed_requests: int
    latency_seconds_total: float
    outcomes: Outcomes

    @classmethod
    def of(cls, counters: Counters, time: float, monotonic: float) -> "Reading":
        """Take down the counters."""
        return cls(
            time=time,
            monotonic=monotonic,
            events=counters.events_processed,
            requests=counters.ingest_requests,
            medians=counters.median_requests,
            timed_requests=counters.timed_requests,
            latency_seconds_total=counters.latency_seconds_total,
            outcomes=Outcomes.of(counters),
        )


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """What happened between two readings; the latency is None when no request came."""

    time: float
    events_per_second: float
    requests_per_second: float
    medians_per_second: float
    ingest_latency_seconds: float | None


def rates(before: Reading, after: Reading) -> Rates:
    """Return the rates from one reading to a later one; zeros when no time has passed."""
    seconds = after.monotonic - before.monotonic
    each = 1 / seconds if seconds > 0 else 0.0
    timed = after.timed_requests - before.timed_requests
    latency = after.latency_seconds_total - before.latency_seconds_total
    return Rates(
        time=after.time,
        events_per_second=(after.events - before.events) * each,
        requests_per_second=(after.requests - before.requests) * each,
        medians_per_second=(after.medians - before.medians) * each,
        ingest_latency_seconds=latency / timed if timed else None,
    )


class Rankings(msgspec.Struct, frozen=True, kw_only=True):
    """A few users at each end, as of a moment, and how long it took to find them.

    Medians are ranked of users with `min_count` scores at least.
    """

    time: float
    seconds: float
    min_count: int
    most_active: Sequence[Ranked]
    highest_medians: Sequence[Ranked]
    lowest_medians: Sequence[Ranked]


class Condition(msgspec.Struct, frozen=True):
    """Something a person should know, in a sentence."""

    level: Literal["bad", "warning", "waiting", "good"]
    sentence: str


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """All that the page shows but for the one user it looks at."""

    time: float
    conditions: Sequence[Condition]  # the worst first; never empty
    stats: Mapping[str, Any]
    rates: Rates
    torchserve: TorchServeStatus
    rankings: Rankings | None


_SEVERITY = ("bad", "warning", "waiting", "good")


def conditions(
    stats: Mapping[str, Any], torchserve: TorchServeStatus, settings: Settings, recent: Outcomes
) -> list[Condition]:
    """Say how things are, the worst first; one sentence at least.

    `recent` is what became of the events of the last minutes.
    """
    found = [*_of_service(stats, settings), *_of_spool(stats["spool"]), *_of_torchserve(torchserve)]
    found += [Condition(*judgement)] if (judgement := judge(recent)) is not None else []
    found.sort(key=lambda condition: _SEVERITY.index(condition.level))
    if found:
        return found
    if not stats["events_processed"] and not stats["held_events"]:
        return [Condition("waiting", "Ready, and waiting for the first event.")]
    if stats["events_processed"] and not any(recent):
        return [Condition("waiting", "Ready, but no event has come for five minutes.")]
    return [Condition("good", "All is well: every answered event is counted.")]


def _of_service(stats: Mapping[str, Any], settings: Settings) -> list[Condition]:
    found = []
    restore = stats["restore"]
    if stats["phase"] == "restoring":
        progress = f"{restore['segments_done']} of {restore['segments_total']} segments"
        if restore["journal_rows_total"]:
            progress += (
                f" and {restore['journal_rows_done']} of {restore['journal_rows_total']} journal"
                " rows"
            )
        found.append(Condition("waiting", f"Restoring what was recorded: {progress}."))
    if stats["phase"] == "stopping":
        found.append(Condition("warning", "Stopping: requests are refused."))
    found += _of_file(stats["journal"], stats["snapshot"], stats["wal"])
    damaged = restore["damaged_blocks"] + restore["damaged_journal_rows"]
    if damaged:
        found.append(Condition("warning", f"{damaged} damaged records were put aside at start."))
    for name, held, most in (
        ("scores", stats["held_events"], settings.max_live_events),
        ("users", stats["held_users"], settings.max_active_users),
    ):
        if held >= _ALMOST_FULL * most:
            found.append(Condition("warning", f"Nearly full: {held:,} of {most:,} {name}."))
    found += _of_event_clock(stats["event_clock"], stats["window_seconds"])
    if stats["loop_lag_seconds"] > _LONG_LAG_SECONDS:
        lag = stats["loop_lag_seconds"]
        found.append(Condition("warning", f"Requests waited {lag:.2f} s for this service lately."))
    return found


def _of_file(
    journal: Mapping[str, Any], snapshot: Mapping[str, Any], wal: Mapping[str, Any]
) -> list[Condition]:
    found = []
    if journal["error"] is not None:
        found.append(
            Condition("bad", f"The journal cannot be written, events wait: {journal['error']}.")
        )
    if snapshot["error"] is not None:
        found.append(Condition("warning", f"Snapshots fail: {snapshot['error']}."))
    if (held_by := wal["held_by"]) is not None:
        size, seconds = wal["bytes"] / 2**20, wal["held_seconds"]
        found.append(
            Condition(
                "warning",
                f"The database's log cannot be emptied for {seconds:.0f} s and has {size:,.0f} MiB:"
                f" {held_by}.",
            )
        )
    return found


def _of_event_clock(clock: Mapping[str, Any] | None, window_seconds: float) -> list[Condition]:
    """Tell of an event that lies so far ahead of the others that its clock must be wrong."""
    if clock is None or clock["waiting_seconds"] <= window_seconds:
        return []
    return [
        Condition(
            "warning",
            f"The newest event lies {clock['waiting_seconds']:,.0f} s ahead of the replay's time"
            " and waits for others to get there, or a producer's clock is wrong.",
        )
    ]


def _of_spool(spool: Mapping[str, Any]) -> list[Condition]:
    found = []
    waiting = spool["batches"] - spool["refused"]
    if waiting > 0:
        found.append(
            Condition(
                "warning",
                f"{waiting:,} {'request waits' if waiting == 1 else 'requests wait'} in the spool,"
                f" the oldest for {spool['oldest_seconds']:.0f} s.",
            )
        )
    if spool["refused"]:
        found.append(Condition("warning", f"{spool['refused']:,} in the spool are refused."))
    if spool["expired_events"]:
        found.append(
            Condition("bad", f"{spool['expired_events']:,} events expired in the spool, uncounted.")
        )
    return found


def _of_torchserve(torchserve: TorchServeStatus) -> list[Condition]:
    if torchserve.state == "away":
        return [
            Condition(
                "bad",
                f"TorchServe is away: {torchserve.detail}. Medians are answered all the same.",
            )
        ]
    if torchserve.state == "unhealthy":
        return [Condition("bad", f"TorchServe does not score: {torchserve.detail}.")]
    workers, ready = torchserve.workers, torchserve.workers_ready
    if workers is not None and ready is not None and ready < workers:
        return [Condition("warning", f"{ready} of TorchServe's {workers} workers are ready.")]
    return []
