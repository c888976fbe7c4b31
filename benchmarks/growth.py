"""Draw what an update, a question and an event's place cost against events and users.

`python -m benchmarks.growth --picture FILE.svg` (or .png) fills engines of growing size and
measures each; it needs matplotlib (`make bench-setup`).
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.engines import Segments
from benchmarks.workloads import Workload, zipf

_TIMED_EVENTS = 200_000
_QUESTIONS = 2_000


@dataclass(frozen=True, slots=True)
class Point:
    """One engine's costs: nanoseconds an update, microseconds a question, bytes an event."""

    live_events: int
    users: int
    update_ns: float
    query_p50_us: float
    query_p99_us: float
    bytes_per_event: float


def measure_point(live: int, users: int, timed: int, memtable_events: int = 65_536) -> Point:
    """Fill an engine, time some updates and questions."""
    workload = zipf(live, timed, users)
    engine = Segments(memtable_events)
    for batch in workload.batches(0, live):
        engine.ingest(batch)
    spent = 0.0
    for batch in workload.batches(live, live + timed):
        start = time.perf_counter()
        engine.ingest(batch)
        spent += time.perf_counter() - start
    latencies = _latencies(engine, workload)
    return Point(
        live,
        users,
        spent / timed * 1e9,
        float(np.percentile(latencies, 50)) * 1e6,
        float(np.percentile(latencies, 99)) * 1e6,
        engine.windows.array_bytes / engine.windows.live_events,
    )


def _latencies(engine: Segments, workload: Workload) -> list[float]:
    now = float(workload.timestamps[-1])
    drawn = np.random.default_rng(5).integers(0, len(workload.users), _QUESTIONS)
    latencies = []
    for user in workload.users[drawn].tolist():
        start = time.perf_counter()
        engine.median(f"user-{user}", now)
        latencies.append(time.perf_counter() - start)
    return latencies


def measure_growth(*, quick: bool) -> dict[str, list[Point]]:
    """Measure along both axes: events with 10,000 users, users with 1.5 million events."""
    if quick:
        by_events = [measure_point(live, 20, 1000, 500) for live in (2000, 4000)]
        by_users = [measure_point(2000, users, 1000, 500) for users in (10, 100)]
    else:
        by_events = [
            measure_point(live, 10_000, _TIMED_EVENTS)
            for live in (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
        ]
        by_users = [
            measure_point(1_500_000, users, _TIMED_EVENTS)
            for users in (100, 1000, 10_000, 100_000, 500_000)
        ]
    return {"live_events": by_events, "users": by_users}


def draw(growth: dict[str, list[Point]], picture: Path) -> None:
    """Draw the curves; the file's suffix is its format."""
    import matplotlib as mpl  # noqa: PLC0415 - only the picture needs it

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the choice of the backend

    kinds: list[tuple[str, dict[str, str]]] = [
        ("update, ns", {"update_ns": "mean"}),
        ("median question, µs", {"query_p50_us": "p50", "query_p99_us": "p99"}),
        ("arrays, bytes an event", {"bytes_per_event": "held"}),
    ]
    axes_names = {"live_events": "live events (10,000 users)", "users": "users (1.5 M live events)"}
    figure, rows = plt.subplots(2, 3, figsize=(12, 6.5), layout="constrained")
    for row, (axis, points) in zip(rows, growth.items(), strict=True):
        for panel, (title, curves) in zip(row, kinds, strict=True):
            for curve, label in curves.items():
                across: list[Any] = [getattr(point, axis) for point in points]
                panel.plot(across, [getattr(point, curve) for point in points], "o-", label=label)
            panel.set(xscale="log", xlabel=axes_names[axis], ylabel=title)
            panel.set_ylim(bottom=0)
            panel.grid(visible=True, alpha=0.3)
            panel.legend()
    figure.savefig(picture)
    plt.close(figure)


def main(
    *,
    picture: Annotated[Path, typer.Option(help="file to draw into: .svg or .png")],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="file to write the points to")
    ] = None,
    quick: Annotated[bool, typer.Option(help="tiny engines: does it run at all")] = False,
) -> None:
    """Measure how costs grow with events and with users, and draw the curves."""
    growth = measure_growth(quick=quick)
    if json_file is not None:
        points = {axis: [asdict(point) for point in found] for axis, found in growth.items()}
        json_file.write_text(json.dumps(points, indent=2) + "\n", encoding="utf-8")
    draw(growth, picture)


if __name__ == "__main__":
    typer.run(main)
