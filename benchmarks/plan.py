"""Which contenders are asked which cases, and that done: one start after the other."""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import psutil
import urllib3

from benchmarks.bodies import Bodies
from benchmarks.cases import (
    CLOSED_LOOP,
    MANY_USERS,
    OPEN_CASE,
    OPEN_LOOP,
    Case,
    Measurement,
    cases_for,
    measure,
)
from benchmarks.contenders import OURS, Contender, StartError
from benchmarks.load import Driver, Load, LoadError
from benchmarks.open_loop import open_loop
from stack.workers import ManagementError

_OPEN_EVENTS_PER_SECOND = 5000.0
# A contender that does not start, does not answer, or is gone, and a load that cannot be made.
_BREAKDOWNS = (
    StartError, LoadError, ManagementError, OSError,
    psutil.Error, subprocess.SubprocessError, urllib3.exceptions.HTTPError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, and for how long each."""

    contenders: tuple[Contender, ...]
    cases: tuple[Case, ...]
    open_loop: bool
    users: tuple[Case, ...]
    workers: tuple[int, ...]
    seconds: int
    open_seconds: int
    warm_up_seconds: int


def run(plan: Plan, drive: Driver, tell: Callable[[str], None]) -> Iterator[Measurement]:
    """Start each contender with each number of workers, and measure its cases."""
    for contender in plan.contenders:
        for workers in plan.workers if contender.scales else (1,):
            yield from _one(plan, contender, workers, drive, tell)
    for contender in plan.contenders:
        if contender.name == OURS:
            for case in plan.users:  # each with an empty state service
                tell(f"{contender.name}, {case.users:,} users")
                asked = _Asked(case, MANY_USERS, drive, plan.seconds, plan.warm_up_seconds)
                yield from _measure_all(contender, max(plan.workers), [asked], tell)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A case, how it is driven, and why it is not where it is not."""

    case: Case
    kind: str
    drive: Driver
    seconds: int
    warm_up_seconds: int
    left_out: str | None = None


def _one(
    plan: Plan, contender: Contender, workers: int, drive: Driver, tell: Callable[[str], None]
) -> Iterator[Measurement]:
    asked = [
        _Asked(case, CLOSED_LOOP, drive, plan.seconds, plan.warm_up_seconds, left_out)
        for case, left_out in cases_for(contender, plan.cases)
    ]
    tell(f"{contender.name}, {workers} worker(s)")
    if asked:
        yield from _measure_all(contender, workers, asked, tell)
    if plan.open_loop:  # started anew: its latency must not be owed to what the others have left
        warm_up_seconds = 2 * plan.warm_up_seconds  # at this rate the JVM takes longer to compile
        opened = _Asked(OPEN_CASE, OPEN_LOOP, _at_fixed_rate, plan.open_seconds, warm_up_seconds)
        yield from _measure_all(contender, workers, [opened], tell)


def _measure_all(
    contender: Contender, workers: int, asked: Sequence[_Asked], tell: Callable[[str], None]
) -> Iterator[Measurement]:
    """Measure on one start of a contender; what fails is reported in place of its numbers."""
    waiting = list(asked)
    try:
        with contender.start(workers) as running:
            while waiting:
                item = waiting[0]
                if item.left_out is not None:
                    yield _not_measured(contender, workers, waiting.pop(0), item.left_out)
                    continue
                found = measure(
                    contender,
                    running,
                    workers,
                    item.case,
                    item.drive,
                    seconds=item.seconds,
                    warm_up_seconds=item.warm_up_seconds,
                    kind=item.kind,
                )
                waiting.pop(0)
                came_out = found.refused or f"{found.events_per_second:,.0f} events/s"
                tell(f"  {item.case.name}: {came_out}")
                yield found
    except _BREAKDOWNS as error:
        tell(f"  {error}")
        for item in waiting:
            failed = _not_measured(contender, workers, item, str(error))
            failed.failed = True
            yield failed


def _not_measured(contender: Contender, workers: int, item: _Asked, why: str) -> Measurement:
    case = item.case
    return Measurement(
        contender.name, workers, item.kind, case.name, case.users, case.events, refused=why
    )


def _at_fixed_rate(url: str, bodies: Bodies, _connections: int, seconds: int) -> Load:
    return open_loop(url, bodies, _OPEN_EVENTS_PER_SECOND, seconds)
