"""What it costs in memory to keep scores for longer than the window, for questions with `at`.

`python -m benchmarks.history` fills the engine with 1.5 million live events of 10,000 users (5,000
a second, a window of 300 s) and goes on until the oldest leave, once for each length of the
history, each in a process of its own.
"""

import multiprocessing
from typing import Annotated, NamedTuple

import psutil
import typer

from benchmarks.workloads import WINDOW_SECONDS, zipf
from state_service.windows import WindowRules, Windows

_MIB = 1024 * 1024
_RUN_ON_SECONDS = 60.0  # beyond the first expiry


class Held(NamedTuple):
    """What one engine holds at the end; sizes in bytes, `resident` the process's growth."""

    history_seconds: float
    held_events: int
    arrays: int
    resident: int


def measure(history_seconds: float, live: int) -> Held:
    """Fill an engine in order of time; what waits is merged after each request."""
    timed = int(live * (history_seconds + _RUN_ON_SECONDS) / WINDOW_SECONDS)
    workload = zipf(live, timed)
    windows = Windows(WindowRules(WINDOW_SECONDS, history_seconds=history_seconds))
    before = psutil.Process().memory_info().rss
    for batch in workload.batches(0, live + timed):
        windows.ingest(batch.user_ids, batch.timestamps, batch.scores, batch.now)
        windows.expire(batch.now)
        while (work := windows.next_work()) is not None:
            windows.finish(work, work.run())
    resident = psutil.Process().memory_info().rss - before
    return Held(history_seconds, windows.live_events, windows.array_bytes, resident)


def main(
    *,
    live: Annotated[int, typer.Option(help="events in the window")] = 1_500_000,
    history: Annotated[str, typer.Option(help="lengths in seconds")] = "0,10,300",
) -> None:
    """Measure the memory that each length of the history takes."""
    print(f"{'history s':>10} {'held events':>12} {'arrays MiB':>11} {'resident MiB':>13}")
    for text in history.split(","):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            held = pool.apply(measure, (float(text), live))
        print(
            f"{held.history_seconds:>10g} {held.held_events:>12,} {held.arrays / _MIB:>11.1f} "
            f"{held.resident / _MIB:>13.1f}"
        )


if __name__ == "__main__":
    typer.run(main)
