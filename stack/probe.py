"""`python -m stack.probe`: exit status 0 when a worker answers a prediction, 1 when none does.

A dry run, so nothing is recorded. TorchServe's own `/ping` is healthy before any model is loaded.
"""

import argparse
import os
import sys
from pathlib import Path

import urllib3

from stack.addresses import Addresses, StackError
from stack.credentials import default_key_file, key_header
from stack.files import SERVER_CONFIG

_EVENTS = b"[]"  # answered by the worker itself, whatever features its model takes
_HEADERS = {"Content-Type": "application/json", "X-Dry-Run": "1"}
_ANSWER_SECONDS = 5.0


def worker_answers(inference_url: str, key_file: Path) -> bool:
    """Ask for a prediction."""
    headers = {**_HEADERS, **key_header(key_file, "inference")}
    url = f"{inference_url}/predictions/scorer"
    try:
        answer = urllib3.request(
            "POST", url, body=_EVENTS, headers=headers, timeout=_ANSWER_SECONDS, retries=False
        )
    except urllib3.exceptions.HTTPError:
        return False
    return answer.status == 200


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m stack.probe",
        description="Exit with status 0 when a worker of TorchServe answers predictions.",
    )
    parser.add_argument(
        "--port-offset", type=int, default=0, help="that of the stack which is meant (0)"
    )
    parser.add_argument("--url", help="the inference address (as it was started)")
    parser.add_argument("--key-file", type=Path, help="TorchServe's keys (in that stack's folder)")
    options = parser.parse_args()
    try:
        addresses = Addresses.load(SERVER_CONFIG, os.environ, options.port_offset)
    except StackError as error:
        sys.exit(f"error: {error}")
    key_file = options.key_file or default_key_file(options.port_offset)
    sys.exit(0 if worker_answers(options.url or addresses.inference.url, key_file) else 1)


if __name__ == "__main__":
    main()
