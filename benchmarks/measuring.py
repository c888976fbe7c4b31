"""One engine under one workload: fill the window, then time, weigh and check."""

import contextlib
import ctypes
import gc
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import psutil

from benchmarks import engines
from benchmarks.workloads import WINDOW_SECONDS, Batch, Workload, make_workload
from state_service.windows import WindowRules

_QUESTIONS_A_BATCH = 5  # of 500 events: one question per 100 events


@dataclass(slots=True)
class Measurement:
    """What came out; None for what was not measured. `skipped` says why nothing was."""

    engine: str
    answers: str
    skipped: str | None = None
    updates_per_second: float | None = None
    mixed_per_second: float | None = None
    query_p50_us: float | None = None
    query_p99_us: float | None = None
    rss_bytes_per_event: float | None = None
    own_bytes_per_event: dict[str, float] = field(default_factory=dict)
    checked: int = 0
    wrong: int = 0


@dataclass(frozen=True, slots=True)
class Contender:
    """An engine: how to make it for a workload, and what it can do."""

    name: str
    answers: str
    make: Callable[[Workload], engines.Engine]
    most_live: int = 2_000_000  # beyond that, filling the window takes too long
    asked: bool = True


def _memtable_events(workload: Workload) -> int:
    """Return the default, or less so that a quick workload fills some memtables too."""
    return min(WindowRules().memtable_events, max(64, workload.live // 8))


EXACT = "exact, time window"

CONTENDERS = (
    Contender(
        "medianserve",
        EXACT,
        lambda workload: engines.Segments(_memtable_events(workload)),
        most_live=50_000_000,
    ),
    Contender(
        "medianserve, slots given",
        "the same, without user ids",
        lambda workload: engines.SegmentsBySlot(_memtable_events(workload), workload.user_count),
        most_live=50_000_000,
        asked=False,
    ),
    Contender("deque + statistics.median", EXACT, lambda _: engines.DequeMedian()),
    Contender("SortedList", EXACT, lambda _: engines.SortedLists()),
    Contender(
        "numpy.partition per user",
        EXACT,
        lambda _: engines.PartitionPerUser(),
        most_live=20_000_000,
    ),
    Contender(
        "river",
        "last n scores: another question",
        lambda workload: engines.River(max(1, workload.live // workload.user_count)),
    ),
    Contender("Redis", EXACT, lambda _: engines.Redis()),
)


def measure(contender: Contender, workload: Workload, seconds: float, checks: int) -> Measurement:
    """Measure one engine, `seconds` at most for each of three timings, in this process."""
    result = Measurement(contender.name, contender.answers)
    result.skipped = engines.missing(contender.name)
    if workload.live > contender.most_live:
        result.skipped = f"would take too long to fill with {workload.live:,} events"
    if result.skipped is not None:
        return result
    rss_before = resident_bytes()
    with contextlib.closing(contender.make(workload)) as engine:
        taken = _take(engine, workload, 0, workload.live, seconds=np.inf)[0]
        rss = resident_bytes() - rss_before
        result.rss_bytes_per_event = rss / workload.live
        result.own_bytes_per_event = {
            part: size / workload.live for part, size in engine.bytes_held().items()
        }
        half = taken + (len(workload.users) - taken) // 2
        before = taken
        taken, duration = _take(engine, workload, taken, half, seconds)
        result.updates_per_second = (taken - before) / duration
        if contender.asked:
            before = taken
            taken, duration = _take(
                engine, workload, taken, len(workload.users), seconds, _QUESTIONS_A_BATCH
            )
            result.mixed_per_second = (taken - before) / duration
            _ask(engine, workload, taken, seconds, result)
            if contender.answers == EXACT:
                _check(engine, workload, taken, checks, result)
    return result


def resident_bytes() -> int:
    """Return the memory of this process, once what is free has been given back to the system."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


def _take(  # noqa: PLR0913, PLR0917 - what is taken, from where to where, for how long, how
    engine: engines.Engine,
    workload: Workload,
    begin: int,
    end: int,
    seconds: float,
    questions: int = 0,
) -> tuple[int, float]:
    """Feed events begin … end - 1 or as many as time allows; return where it stopped, the time.

    Making the batches is not timed.
    """
    spent, taken = 0.0, begin
    for batch in workload.batches(begin, end):
        asked = _users_of(batch, questions)
        start = time.perf_counter()
        engine.ingest(batch)
        for user_id in asked:
            engine.median(user_id, batch.now)
        spent += time.perf_counter() - start
        taken += len(batch.user_ids)
        if spent > seconds:
            break
    return taken, spent


def _users_of(batch: Batch, questions: int) -> list[str]:
    """Ask about users as often as they have traffic: about those of some of the events."""
    places = np.linspace(0, len(batch.user_ids) - 1, questions).astype(int)
    return [f"user-{user}" for user in batch.users[places].tolist()]


def _ask(
    engine: engines.Engine, workload: Workload, taken: int, seconds: float, result: Measurement
) -> None:
    """Time single questions about users drawn by their traffic."""
    now = float(workload.timestamps[taken - 1])
    drawn = np.random.default_rng(7).integers(max(0, taken - workload.live), taken, 20_000)
    latencies: list[float] = []
    deadline = time.perf_counter() + seconds
    for user in workload.users[drawn].tolist():
        user_id = f"user-{user}"
        start = time.perf_counter()
        engine.median(user_id, now)
        end = time.perf_counter()
        latencies.append(end - start)
        if end > deadline:
            break
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e6
    result.query_p50_us, result.query_p99_us = float(p50), float(p99)


def _check(
    engine: engines.Engine, workload: Workload, taken: int, checks: int, result: Measurement
) -> None:
    """Compare with brute force: some users with much traffic, some with any, one unknown."""
    now = float(workload.timestamps[taken - 1])
    dice = np.random.default_rng(8)
    some = workload.users[dice.integers(0, taken, checks // 2)].tolist()
    any_users = dice.integers(0, workload.user_count, checks - len(some)).tolist()
    for user in {*some, *any_users, workload.user_count}:
        result.checked += 1
        if engine.median(f"user-{user}", now) != workload.true_median(user, taken):
            result.wrong += 1


def measure_apart(
    contender_place: int, workload_name: str, seconds: float, checks: int
) -> Measurement:
    """Measure in a fresh process, so that nobody's memory is weighed with another's."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure_by_place, (contender_place, workload_name, seconds, checks))


def _measure_by_place(
    contender_place: int, workload_name: str, seconds: float, checks: int
) -> Measurement:
    workload = make_workload(workload_name, quick=False)
    return measure(CONTENDERS[contender_place], workload, seconds, checks)


def as_json(workload: Workload, measurements: list[Measurement]) -> dict[str, Any]:
    """Return one workload's part of the report."""
    return {
        "workload": workload.name,
        "live_events": workload.live,
        "users": workload.user_count,
        "batch_events": workload.batch_events,
        "window_seconds": WINDOW_SECONDS,
        "engines": [asdict(measurement) for measurement in measurements],
    }
