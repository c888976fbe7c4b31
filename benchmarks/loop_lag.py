"""How long the event loop keeps others waiting under load: `python -m benchmarks.loop_lag`.

Offers POSTs of 500 events at a fixed rate to a real service that takes snapshots, and measures in
the service itself, every millisecond, by how much a timer is late. A stall of 30 ms is what thirty
requests would have met, so it counts as 30, 29, 28, … ms: percentiles are those of a request that
arrives at any moment.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import numpy as np

from benchmarks.state_process import batches, running, wait_until_ready
from state_service import loop_lag
from state_service.__main__ import main as serve

_PERIOD_SECONDS = 0.001


def main() -> None:
    """Run the command line; `--serve` first is how it starts its own service."""
    if sys.argv[1:2] == ["--serve"]:
        _serve(Path(sys.argv[2]), sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rate", type=int, default=100_000, help="events a second")
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--durability", default="journal")
    given = parser.parse_args()
    bodies = batches(round(given.rate * given.seconds / 500), 500, given.users, time.time())
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "lags.npy"
        program = ("-m", "benchmarks.loop_lag", "--serve", str(report))
        arguments = ("--durability", given.durability)
        with running(Path(folder) / "state.db", *arguments, program=program) as (url, process):
            wait_until_ready(url)
            taken, waits = asyncio.run(_offer(url, bodies, given.rate / 500))
            process.terminate()
            process.wait()
        lags = np.load(report) * 1000
    arriving = np.concatenate([np.arange(lag, 0, -1000 * _PERIOD_SECONDS) for lag in lags])
    answer = {
        "offered_events_per_second": given.rate,
        "taken_events_per_second": round(taken * 500 / given.seconds),
        "durability": given.durability,
        "lag_ms": _percentiles(arriving),
        "post_ms": _percentiles(np.array(waits) * 1000),
    }
    print(json.dumps(answer, indent=2))


def _percentiles(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> dict[str, float]:
    wanted = {"p50": 50, "p99": 99, "p99.9": 99.9, "max": 100}
    return {name: round(float(np.percentile(values, at)), 2) for name, at in wanted.items()}


async def _offer(url: str, bodies: list[bytes], posts_a_second: float) -> tuple[int, list[float]]:
    """Post each body when it is due; return how many were taken, and each one's wait since then."""
    began, queue = time.perf_counter() + 0.1, iter(enumerate(bodies))
    waits: list[float] = []

    async def client() -> int:
        taken = 0
        for number, body in queue:
            due = began + number / posts_a_second
            await asyncio.sleep(due - time.perf_counter())
            async with session.post(f"{url}/scores", data=body) as answer:
                taken += answer.status == 200
            waits.append(time.perf_counter() - due)
        return taken

    async with aiohttp.ClientSession() as session:
        return sum(await asyncio.gather(*(client() for _ in range(32)))), waits


def _serve(report: Path, arguments: list[str]) -> None:
    """Serve as always, but measure more often and keep every measurement."""
    lags: list[float] = []

    async def measure(_self: loop_lag.LoopLag, closing: asyncio.Event) -> None:
        while not closing.is_set():
            due = time.perf_counter() + _PERIOD_SECONDS
            await asyncio.sleep(_PERIOD_SECONDS)
            lags.append(max(0.0, time.perf_counter() - due))

    setattr(loop_lag.LoopLag, "measure", measure)  # noqa: B010 - replaced, not assigned
    sys.argv[1:] = arguments
    serve()
    np.save(report, np.array(lags))


if __name__ == "__main__":
    main()
