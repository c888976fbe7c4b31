"""`python -m stack.probe`: exit status 0 when a worker answers a prediction, 1 when none does.

A dry run, so nothing is recorded. TorchServe's own `/ping` is healthy before any model is loaded.
"""

import argparse
import sys
from pathlib import Path

import urllib3

from stack.credentials import default_key_file, key_header

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
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the inference address")
    parser.add_argument("--key-file", type=Path, default=default_key_file())
    options = parser.parse_args()
    sys.exit(0 if worker_answers(options.url, options.key_file) else 1)


if __name__ == "__main__":
    main()
