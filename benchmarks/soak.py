"""Let very many users pass through, few of them live at once, and see that memory comes back.

`python -m benchmarks.soak` sends ten million users by, each with one event, a short window wide;
then a rush of users who all stay at once; then silence. What the engine holds at the end is what
it held at the beginning.
"""

import time
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import typer

from benchmarks.measuring import resident_bytes
from state_service.windows import WindowRules, Windows

_WINDOW, _BATCH = 300.0, 500


@dataclass(frozen=True, slots=True)
class Footprint:
    """What is held at a moment; sizes in bytes."""

    moment: str
    active_users: int
    live_events: int
    array_bytes: int
    user_id_bytes: int
    resident_bytes: int


def soak(users: int, live: int, memtable_events: int = 65_536) -> list[Footprint]:
    """Send `users` distinct users by, `live` of them at once; return the footprints on the way."""
    windows = Windows(WindowRules(_WINDOW, history_seconds=0.0, memtable_events=memtable_events))
    footprints = [_footprint("empty", windows)]
    clock = 1_795_000_000.0
    for moment, count, seconds_an_event in (
        ("first window", live, _WINDOW / live),
        ("all have passed", users - live, _WINDOW / live),
        ("rush", 5 * live, _WINDOW / (10 * live)),
    ):
        clock = _send(windows, moment, count, clock, seconds_an_event)
        footprints.append(_footprint(moment, windows))
    clock += 2 * _WINDOW
    for _ in range(2 + windows.active_users // 10_000):
        windows.expire(clock)
    footprints.append(_footprint("silence", windows))
    return footprints


def _send(
    windows: Windows, prefix: str, count: int, clock: float, seconds_an_event: float
) -> float:
    """Send one event of each of `count` new users; return the time of the last one."""
    for first in range(0, count, _BATCH):
        size = min(_BATCH, count - first)
        ids = [f"{prefix} {number}" for number in range(first, first + size)]
        times = clock + np.arange(1.0, size + 1) * seconds_an_event
        clock = float(times[-1])
        windows.ingest(ids, times, np.cos(times), clock)
        windows.expire(clock)
        if first // _BATCH % 16 == 0:
            while (work := windows.next_work()) is not None:
                windows.finish(work, work.run())
    return clock


def _footprint(moment: str, windows: Windows) -> Footprint:
    return Footprint(
        moment,
        windows.active_users,
        windows.live_events,
        windows.array_bytes,
        windows.user_id_bytes(),
        resident_bytes(),
    )


def main(
    users: Annotated[int, typer.Option(help="distinct users passing through")] = 10_000_000,
    live: Annotated[int, typer.Option(help="of them, live at once")] = 100_000,
) -> None:
    """Send very many users through the engine; print what it holds on the way."""
    start = time.perf_counter()
    print(f"{'':>16} {'users':>10} {'events':>10} {'arrays MB':>10} {'ids MB':>8} {'RSS MB':>8}")
    for found in soak(users, live):
        print(
            f"{found.moment:>16} {found.active_users:>10,} {found.live_events:>10,} "
            f"{found.array_bytes / 1e6:>10.1f} {found.user_id_bytes / 1e6:>8.1f} "
            f"{found.resident_bytes / 1e6:>8.1f}"
        )
    print(f"{users:,} users in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    typer.run(main)
