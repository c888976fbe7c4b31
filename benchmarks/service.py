"""Measure the whole service beside its peers: `python -m benchmarks.service --help`."""

import json
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import psutil
import typer
import urllib3
from rich.console import Console

from benchmarks.bodies import Bodies
from benchmarks.cases import (
    CLOSED_LOOP,
    JSON_CASES,
    MANY_USERS,
    OPEN_CASE,
    OPEN_LOOP,
    OTHER_CASES,
    USER_CASES,
    Case,
    Measurement,
    cases_for,
    measure,
)
from benchmarks.contenders import CONTENDERS, OURS, Contender, StartError
from benchmarks.drawing import draw
from benchmarks.headlines import headlines
from benchmarks.load import Driver, Load, LoadError, wrk
from benchmarks.open_loop import open_loop
from benchmarks.tables import markdown, said, terminal_table
from stack.workers import ManagementError

_CASES = {case.name: case for case in (*JSON_CASES, *OTHER_CASES)}
_OPEN_NAME, _USERS_NAME = "open-loop", "users"
CASE_NAMES = (*_CASES, _OPEN_NAME, _USERS_NAME)
_QUICK_CASES = ("json-1", "json-100", _OPEN_NAME)
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
    if plan.open_loop:
        asked.append(_Asked(OPEN_CASE, OPEN_LOOP, _at_fixed_rate, plan.open_seconds, 0))
    if asked:
        tell(f"{contender.name}, {workers} worker(s)")
        yield from _measure_all(contender, workers, asked, tell)


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
                tell(f"  {item.case.name}: {found.events_per_second:,.0f} events/s")
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


def machine() -> dict[str, object]:
    """Say what it ran on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": psutil.cpu_count(),
        "memory GiB": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
    }


def _chosen(given: Sequence[str] | None, known: Sequence[str], what: str) -> list[str]:
    unknown = set(given or ()) - set(known)
    if unknown:
        raise typer.BadParameter(
            f"no {what} is called {', '.join(sorted(unknown))}; there are {', '.join(known)}"
        )
    return [name for name in known if not given or name in given]


def plan_for(
    *,
    quick: bool,
    seconds: int,
    contender: list[str] | None = None,
    case: list[str] | None = None,
    workers: list[int] | None = None,
) -> Plan:
    """Turn the options into a plan. Raises `typer.BadParameter` naming what is unknown."""
    names = _chosen(contender, [known.name for known in CONTENDERS], "contender")
    cases = _chosen(case or (list(_QUICK_CASES) if quick else None), CASE_NAMES, "case")
    return Plan(
        contenders=tuple(known for known in CONTENDERS if known.name in names),
        cases=tuple(known for name, known in _CASES.items() if name in cases),
        open_loop=_OPEN_NAME in cases,
        users=USER_CASES if _USERS_NAME in cases else (),
        workers=tuple(sorted(set(workers or ([1] if quick else [1, 2])))),
        seconds=1 if quick else seconds,
        open_seconds=1 if quick else 3 * seconds,
        warm_up_seconds=0 if quick else 2,
    )


def main(  # noqa: PLR0913 - typer makes each option from a parameter
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="a second for each of a few cases: does it run at all")
    ] = False,
    seconds: Annotated[
        int, typer.Option(min=1, help="for each case; the fixed rate is held three times as long")
    ] = 5,
    contender: Annotated[
        list[str] | None,
        typer.Option(help=f"one of {', '.join(known.name for known in CONTENDERS)}; repeatable"),
    ] = None,
    case: Annotated[
        list[str] | None, typer.Option(help=f"one of {', '.join(CASE_NAMES)}; repeatable")
    ] = None,
    workers: Annotated[
        list[int] | None, typer.Option(min=1, help="TorchServe workers; repeatable (1 and 2)")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="file to write all numbers to")
    ] = None,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", help="file to write the tables to")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="file to draw into: .svg or .png")] = None,
) -> None:
    """Measure medianserve, two peers and TorchServe's ceiling under the same load, in one run.

    Exits with 1 when a contender did not start or counted wrongly.
    """
    console = Console(width=190)
    plan = plan_for(quick=quick, seconds=seconds, contender=contender, case=case, workers=workers)
    if shutil.which("wrk") is None:
        typer.echo("error: wrk, which makes the load, is missing: apt install wrk", err=True)
        raise typer.Exit(2)
    tell = partial(console.print, style="dim", markup=False, highlight=False)
    found: list[Measurement] = []
    try:
        for measurement in run(plan, wrk, tell):
            found.append(measurement)  # noqa: PERF402 - kept when the run is interrupted
    finally:
        report(found, console, json_file, markdown_file, picture)
    if any(item.failed or item.wrong is not None for item in found):
        raise typer.Exit(1)


def report(
    found: list[Measurement],
    console: Console,
    json_file: Path | None,
    markdown_file: Path | None,
    picture: Path | None,
) -> None:
    """Print everything, and write the files asked for."""
    lines = headlines(found)
    for kind in (CLOSED_LOOP, OPEN_LOOP, MANY_USERS):
        if of_kind := [item for item in found if item.kind == kind]:
            console.print(terminal_table(kind, of_kind))
    for line in lines:
        console.print(said(line), markup=False, highlight=False)
    if json_file is not None:
        document = {
            "machine": machine(),
            "headlines": [asdict(line) for line in lines],
            "measurements": [asdict(item) for item in found],
        }
        json_file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if markdown_file is not None:
        markdown_file.write_text(markdown(machine(), lines, found), encoding="utf-8")
    if picture is not None:
        draw(found, picture)


if __name__ == "__main__":
    typer.run(main)
