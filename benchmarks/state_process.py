"""A real state service in a process of its own, on a free port, for the benchmarks beside."""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import urllib3

REPOSITORY = Path(__file__).parents[1]
SERVICE = ("-m", "state_service")


def batches(count: int, events: int, users: int, now: float, seed: int = 7) -> list[bytes]:
    """Return `count` bodies of `POST /scores` of so many events; users by Zipf, s = 1."""
    generator = np.random.default_rng(seed)
    weights = 1 / np.arange(1, users + 1)
    names = np.array([f"user-{number}" for number in range(users)])
    bodies = []
    for number in range(count):
        chosen = generator.choice(users, events, p=weights / weights.sum())
        body = {
            "key": f"{seed}-{number}",
            "user_id": names[chosen].tolist(),
            "timestamp": (now - generator.random(events)).tolist(),
            "score": generator.standard_normal(events).tolist(),
        }
        bodies.append(msgspec.json.encode({"batches": [body]}))
    return bodies


@contextlib.contextmanager
def running(
    database: Path, *arguments: str, program: Sequence[str] = SERVICE
) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Start the service; give its address once it listens, and its process; kill it at the end."""
    command = (sys.executable, *program, "--port", "0", "--database", str(database), *arguments)
    with subprocess.Popen(  # noqa: S603 - our own program
        (*command, "--log-level", "warning"), cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found, "the service did not start"
            yield found.group(), process
        finally:
            process.kill()


def wait_until_ready(url: str) -> None:
    """Return once /readyz says so."""
    while urllib3.request("GET", f"{url}/readyz", retries=False).status != 200:
        time.sleep(0.002)


def medians(url: str, user_ids: Sequence[str]) -> bytes:
    """Return the answer to `POST /medians`, at most 10,000 users, to be compared as it is."""
    body = msgspec.json.encode({"user_ids": list(user_ids)})
    answer = urllib3.request("POST", f"{url}/medians", body=body)
    assert answer.status == 200, answer.data
    return answer.data
