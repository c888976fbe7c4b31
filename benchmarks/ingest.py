"""Events a second through `POST /scores`, by durability: `python -m benchmarks.ingest`.

Sixteen clients post as fast as they are answered. They run on the same machine and take their
share of it, so the numbers are for comparing the modes with each other.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import aiohttp

from benchmarks.state_process import batches, running, wait_until_ready

_CLIENTS = 16
_MODES = ("snapshot", "journal", "full")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    for size in (500, 50):
        best = dict.fromkeys(_MODES, 0.0)
        commits = dict.fromkeys(_MODES, 0)
        for _ in range(given.repeats):  # the modes take turns: other work on the machine hits all
            bodies = batches(given.events // size, size, 10_000, time.time())
            for mode in _MODES:
                rate, commits[mode] = _measure(mode, bodies, size)
                best[mode] = max(best[mode], rate)
        for mode in _MODES:
            shared = (
                f", {len(bodies) / commits[mode]:.1f} requests a commit" if commits[mode] else ""
            )
            share = best[mode] / best["snapshot"]
            print(f"POSTs of {size:3}  {mode:8}  {best[mode]:9,.0f} events/s {share:5.0%}{shared}")


def _measure(mode: str, bodies: list[bytes], size: int) -> tuple[float, int]:
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "state.db"
        with running(database, "--durability", mode) as (url, _):
            wait_until_ready(url)
            seconds, commits = asyncio.run(_post(url, bodies))
    return len(bodies) * size / seconds, commits


async def _post(url: str, bodies: list[bytes]) -> tuple[float, int]:
    """Post everything; return the seconds it took and the commits it needed."""
    queue = iter(bodies)

    async def client() -> None:
        for body in queue:
            async with session.post(f"{url}/scores", data=body) as answer:
                assert answer.status == 200, await answer.text()

    async with aiohttp.ClientSession() as session:
        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(_CLIENTS)))
        seconds = time.perf_counter() - began
        async with session.get(f"{url}/stats") as answer:
            return seconds, (await answer.json())["journal"]["commits"]


if __name__ == "__main__":
    main()
