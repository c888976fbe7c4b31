"""How long a kill -9 keeps the service away: `python -m benchmarks.restore [--events N]`.

Fills a real service, kills it, starts it again on the same file and takes the time from the start
of the process to the first 200 of /readyz; then compares every user's median with that before the
kill, byte by byte. Once with everything in snapshots but the last seconds, as in real life, and
once with everything still in the journal, the worst that can be.
"""

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import urllib3

from benchmarks.state_process import batches, medians, running, wait_until_ready

_LONG = ("--window-seconds", "3600")  # nothing may expire while we look


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=1_500_000)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        empty = min(_start(Path(folder) / "empty.db", [])[0] for _ in range(given.repeats))
    print(f"{'nothing':30} {empty:6.2f} s from process start to ready")
    for name, interval in (("snapshots and a journal", "1"), ("the journal alone", "3600")):
        with tempfile.TemporaryDirectory() as folder:
            database = Path(folder) / "state.db"
            users = [f"user-{number}" for number in range(given.users)]
            before, rows = _fill(database, given.events, given.users, interval)
            seconds = []
            for _ in range(given.repeats):
                took, after = _start(database, users)
                assert after == before, "the medians differ"
                seconds.append(took)
        best = min(seconds)
        print(
            f"{name:30} {best:6.2f} s, {best - empty:.2f} s more than nothing; {given.events:,} "
            f"events, {rows} rows in the journal; medians equal to the last bit"
        )


def _fill(database: Path, events: int, users: int, interval: str) -> tuple[bytes, int]:
    """Record the events and kill the service; return all medians and the rows of the journal."""
    bodies = batches(events // 500, 500, users, time.time())
    with running(database, *_LONG, "--snapshot-interval-seconds", interval) as (url, process):
        wait_until_ready(url)
        pool = urllib3.PoolManager(maxsize=8)

        def post(body: bytes) -> None:
            assert pool.request("POST", f"{url}/scores", body=body).status == 200

        with ThreadPoolExecutor(8) as clients:
            list(clients.map(post, bodies))
        before = medians(url, [f"user-{number}" for number in range(users)])
        rows = pool.request("GET", f"{url}/stats").json()["journal"]["rows"]
        process.kill()
    return before, rows


def _start(database: Path, users: list[str]) -> tuple[float, bytes]:
    """Start, ask and kill; return the seconds to readiness and the medians."""
    began = time.perf_counter()
    with running(database, *_LONG, "--snapshot-interval-seconds", "3600") as (url, _):
        wait_until_ready(url)
        seconds = time.perf_counter() - began
        return seconds, medians(url, users)


if __name__ == "__main__":
    main()
