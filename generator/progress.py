"""What is shown while a run goes on, on stderr: a live bar in a terminal, else a line now and then.

Reads the tally, never changes it.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from generator.tally import Tally

LIVE_EVERY_SECONDS = 0.5
PLAIN_EVERY_SECONDS = 5.0


@contextlib.asynccontextmanager
async def shown(
    tally: Tally,
    target_rate: float,
    duration_seconds: float,
    *,
    quiet: bool,
    plain_every_seconds: float = PLAIN_EVERY_SECONDS,
) -> AsyncIterator[None]:
    """Show the run's progress on stderr inside this block; nothing when `quiet`."""
    if quiet:
        yield
        return
    console = Console(stderr=True)
    if console.is_terminal:
        showing = _live(console, tally, target_rate, duration_seconds)
    else:
        showing = _plain(console, tally, target_rate, duration_seconds, plain_every_seconds)
    task = asyncio.create_task(showing)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class RateMeter:
    """Accepted events a second since the last reading."""

    def __init__(self, now: float) -> None:
        self._then = now
        self._events_then = 0

    def read(self, events: int, now: float) -> float:
        """Take a reading: `events` in total at `now` (any clock, seconds)."""
        elapsed = max(now - self._then, 1e-9)
        rate = (events - self._events_then) / elapsed
        self._then, self._events_then = now, events
        return rate


def progress_line(tally: Tally, rate: float, target_rate: float) -> str:
    """Say how it goes in one line."""
    latency = tally.latency.summary()
    p99 = "-" if latency.p99 is None else f"{latency.p99:,.1f} ms"
    return (
        f"{tally.accepted_events:,} events  {rate:,.0f}/{target_rate:,.0f} a second  p99 {p99}  "
        f"in flight {tally.in_flight}  retries {tally.retries}  failed {tally.failed_requests}"
    )


async def _live(console: Console, tally: Tally, target_rate: float, duration: float) -> None:
    started = time.monotonic()
    meter = RateMeter(started)
    columns = (BarColumn(bar_width=20), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, auto_refresh=False) as bar:
        task = bar.add_task("starting", total=duration)
        try:
            while True:
                await asyncio.sleep(LIVE_EVERY_SECONDS)
                now = time.monotonic()
                line = progress_line(tally, meter.read(tally.accepted_events, now), target_rate)
                bar.update(task, completed=now - started, description=line, refresh=True)
        finally:
            bar.update(task, description=f"{tally.accepted_events:,} events", refresh=True)


async def _plain(
    console: Console, tally: Tally, target_rate: float, duration: float, every_seconds: float
) -> None:
    started = time.monotonic()
    meter = RateMeter(started)
    while True:
        await asyncio.sleep(every_seconds)
        now = time.monotonic()
        line = progress_line(tally, meter.read(tally.accepted_events, now), target_rate)
        console.print(
            f"{now - started:.0f}/{duration:g} s  {line}", highlight=False, soft_wrap=True
        )
