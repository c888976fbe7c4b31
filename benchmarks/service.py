"""Measure the whole service beside its peers: `python -m benchmarks.service --help`."""

import importlib.util
import json
import os
import platform
import shutil
import signal
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Console

from benchmarks.cases import (
    CLOSED_LOOP,
    JSON_CASES,
    MANY_USERS,
    OPEN_LOOP,
    OTHER_CASES,
    USER_CASES,
    Measurement,
)
from benchmarks.contenders import CONTENDERS
from benchmarks.drawing import draw
from benchmarks.headlines import headlines
from benchmarks.load import wrk
from benchmarks.plan import Plan, run
from benchmarks.tables import markdown, said, terminal_table

_CASES = {case.name: case for case in (*JSON_CASES, *OTHER_CASES)}
_OPEN_NAME, _USERS_NAME = "open-loop", "users"
CASE_NAMES = (*_CASES, _OPEN_NAME, _USERS_NAME)
_QUICK_CASES = ("json-1", "json-100", _OPEN_NAME)
_BUSY_LOAD_AVERAGE = 0.5


def machine() -> dict[str, object]:
    """Say what it runs on, and how busy that is already."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": psutil.cpu_count(),
        "memory GiB": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "load average before": round(os.getloadavg()[0], 2),
    }


def missing() -> str | None:
    """Say what a run needs and does not find, and how to get it."""
    if shutil.which("wrk") is None:
        return "wrk, which makes the load, is missing: apt install wrk"
    for package in ("fastapi", "uvicorn", "pyarrow", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is missing: make bench-setup"
    return None


def _new_file(value: Path | None) -> Path | None:
    # A quarter of an hour's run must not end at a misspelt folder.
    if value is not None and not value.absolute().parent.is_dir():
        raise typer.BadParameter(f"the folder {value.absolute().parent} does not exist")
    return value


def _new_picture(value: Path | None) -> Path | None:
    if value is not None and value.suffix not in {".svg", ".png"}:
        raise typer.BadParameter(f"{value.name} is neither .svg nor .png")
    return _new_file(value)


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
        Path | None, typer.Option("--json", callback=_new_file, help="file to write all numbers to")
    ] = None,
    markdown_file: Annotated[
        Path | None,
        typer.Option("--markdown", callback=_new_file, help="file to write the tables to"),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(callback=_new_picture, help="file to draw into: .svg or .png")
    ] = None,
) -> None:
    """Measure medianserve, two peers and TorchServe's ceiling under the same load, in one run.

    Exits with 1 when a contender did not start or counted wrongly.
    """
    console = Console(width=190)
    plan = plan_for(quick=quick, seconds=seconds, contender=contender, case=case, workers=workers)
    if complaint := missing():
        typer.echo(f"error: {complaint}", err=True)
        raise typer.Exit(2)
    before = machine()
    if os.getloadavg()[0] > _BUSY_LOAD_AVERAGE:
        console.print("something else is running here: rates and latencies will suffer")
    tell = partial(console.print, style="dim", markup=False, highlight=False)
    found: list[Measurement] = []
    try:
        for measurement in run(plan, wrk, tell):
            found.append(measurement)  # noqa: PERF402 - kept when the run is interrupted
    finally:
        report(before, found, console, json_file, markdown_file, picture)
    if any(item.failed or item.wrong is not None for item in found):
        raise typer.Exit(1)


def report(  # noqa: PLR0913, PLR0917 - what was found, and all places it goes to
    ran_on: dict[str, object],
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
            "machine": ran_on,
            "headlines": [asdict(line) for line in lines],
            "measurements": [asdict(item) for item in found],
        }
        json_file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if markdown_file is not None:
        markdown_file.write_text(markdown(ran_on, lines, found), encoding="utf-8")
    if picture is not None:
        draw(found, picture)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: contenders are ended
    typer.run(main)
