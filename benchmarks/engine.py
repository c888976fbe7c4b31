"""Measure the window engine beside its peers: `python -m benchmarks.engine --help`."""

import json
import platform
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import CONTENDERS, Measurement, as_json, measure, measure_apart
from benchmarks.workloads import WORKLOADS, Workload, make_workload

_QUICK_CHECKS, _CHECKS = 20, 100


def run(*, quick: bool, seconds: float, only: list[str], console: Console) -> dict[str, Any]:
    """Measure everything; print a table a workload; return the report."""
    reports = []
    for name in WORKLOADS:
        if only and name not in only:
            continue
        workload = make_workload(name, quick=quick)
        measurements = []
        for place, contender in enumerate(CONTENDERS):
            console.print(f"{name}: {contender.name}", style="dim")
            measurements.append(
                measure(contender, workload, seconds, _QUICK_CHECKS)
                if quick
                else measure_apart(place, name, seconds, _CHECKS)
            )
        console.print(_table(workload, measurements))
        for found in measurements:
            if found.skipped is not None:
                console.print(f"skipped {found.engine}: {found.skipped}", markup=False)
        reports.append(as_json(workload, measurements))
    engines = [engine for report in reports for engine in report["engines"]]
    return {
        "quick": quick,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": psutil.cpu_count(),
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
        "checked": sum(engine["checked"] for engine in engines),
        "wrong": sum(engine["wrong"] for engine in engines),
        "workloads": reports,
    }


def _table(workload: Workload, measurements: list[Measurement]) -> Table:
    table = Table(
        title=f"{workload.name}: {workload.live:,} live events, {workload.user_count:,} users"
    )
    table.add_column("engine")
    for heading in (
        "updates/s", "mixed/s", "query p50 µs", "p99 µs", "RSS B/event", "own B/event", "wrong",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    table.add_column("answers")
    for found in measurements:
        if found.skipped is not None:
            continue
        own = " + ".join(f"{size:.1f} {part}" for part, size in found.own_bytes_per_event.items())
        table.add_row(
            found.engine,
            _number(found.updates_per_second),
            _number(found.mixed_per_second),
            _number(found.query_p50_us),
            _number(found.query_p99_us),
            _number(found.rss_bytes_per_event),
            own,
            f"{found.wrong} of {found.checked}" if found.checked else "unchecked",
            found.answers,
        )
    return table


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def main(
    *,
    quick: Annotated[bool, typer.Option(help="a few thousand events: does it run at all")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="file to write the report to")
    ] = None,
    seconds: Annotated[float, typer.Option(help="longest time for each timing")] = 20.0,
    workload: Annotated[
        list[str] | None, typer.Option(help=f"one of {', '.join(WORKLOADS)}; may be repeated")
    ] = None,
) -> None:
    """Measure the window engine and its peers under the same workloads, and check the answers."""
    unknown = set(workload or ()) - set(WORKLOADS)
    if unknown:
        raise typer.BadParameter(f"no workload is called {', '.join(sorted(unknown))}")
    report = run(quick=quick, seconds=seconds, only=workload or [], console=Console(width=160))
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if report["wrong"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
