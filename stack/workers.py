"""`python -m stack.workers [N]`: show or set how many workers score, while requests go on.

The management API must never be published; this asks it where it listens, on loopback: on the
machine itself, or inside the container by `docker compose exec torchserve python -m stack.workers`.
"""

import argparse
import json
import os
import sys
import time
from http import HTTPStatus
from pathlib import Path

import urllib3

from stack.addresses import Addresses, StackError
from stack.credentials import default_key_file, key_header
from stack.files import SERVER_CONFIG

_ANSWER_SECONDS = 10.0
_READY_SECONDS = 180.0  # above startupTimeout: a new worker imports torch first
_POLL_SECONDS = 0.2


class ManagementError(Exception):
    """TorchServe cannot do it; the message is one sentence for the user."""


def ready_workers(management_url: str, key_file: Path | None = None) -> int:
    """Return how many workers are ready to score."""
    answer = _ask("GET", f"{management_url}/models/scorer", key_file)
    return sum(worker["status"] == "READY" for worker in answer[0]["workers"])


def scale(management_url: str, workers: int, key_file: Path | None = None) -> None:
    """Start or end workers until there are so many; returns when so many are ready.

    Asks again and again, not once with `synchronous=true`: its one answer may take as long as a
    worker's start, beyond the time that is given to any answer here.
    """
    url = f"{management_url}/models/scorer?min_worker={workers}&max_worker={workers}"
    _ask("PUT", url, key_file)
    deadline = time.monotonic() + _READY_SECONDS
    while (ready := ready_workers(management_url, key_file)) != workers:
        if time.monotonic() > deadline:
            raise ManagementError(f"{ready} workers are ready after {_READY_SECONDS:g} s")
        time.sleep(_POLL_SECONDS)


def _ask(method: str, url: str, key_file: Path | None) -> list[dict[str, list[dict[str, str]]]]:
    headers = {} if key_file is None else key_header(key_file, "management")
    try:
        answer = urllib3.request(
            method, url, headers=headers, timeout=_ANSWER_SECONDS, retries=False
        )
    except urllib3.exceptions.HTTPError as error:
        raise ManagementError(f"no answer from {url}: is TorchServe running? ({error})") from error
    body = json.loads(answer.data)
    if answer.status >= HTTPStatus.BAD_REQUEST:
        raise ManagementError(f"TorchServe refuses: {body.get('message', body)}")
    return body if isinstance(body, list) else [body]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m stack.workers",
        description="Show how many workers score, or set it; requests go on meanwhile.",
        epilog="A restart goes back to default_workers_per_model of config.properties.",
    )
    parser.add_argument("workers", type=int, nargs="?", help="how many to run from now on")
    parser.add_argument(
        "--port-offset", type=int, default=0, help="that of the stack which is meant (0)"
    )
    parser.add_argument("--management-url", help="where it listens instead (as it was started)")
    parser.add_argument(
        "--key-file", type=Path,
        help="TorchServe's keys, when its token authorization is on (in that stack's folder)",
    )  # fmt: skip
    options = parser.parse_args()
    if options.workers is not None and options.workers < 1:
        parser.error("at least one worker must run")
    try:
        addresses = Addresses.load(SERVER_CONFIG, os.environ, options.port_offset)
        url = options.management_url or addresses.management.url
        key_file = options.key_file or default_key_file(options.port_offset)
        if options.workers is not None:
            scale(url, options.workers, key_file)
        print(f"{ready_workers(url, key_file)} workers ready")
    except (ManagementError, StackError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
