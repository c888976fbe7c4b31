"""`python -m state_service check | dump | backup`: looking at a database instead of serving it."""

import argparse
import os
import sys
from pathlib import Path

import msgspec

from state_service.errors import StorageError
from state_service.inspection import back_up, inspect, stored_events

COMMANDS = {
    "check": "verify a database: exit status 1, and a sentence for each problem, if there is any",
    "dump": "print every event held, one JSON object a line",
    "backup": "copy a database to a new file, also while the service runs",
}


class _Event(msgspec.Struct):
    user_id: str
    timestamp: float
    score: float


def run_command(arguments: list[str]) -> int:
    """Run the command that `arguments` begin with; return the exit status."""
    name = arguments[0]
    parser = argparse.ArgumentParser(
        prog=f"python -m state_service {name}", description=f"{COMMANDS[name].capitalize()}."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the database")
    if name == "backup":
        parser.add_argument("target", type=Path, metavar="TARGET", help="the file to create")
    given = parser.parse_args(arguments[1:])
    try:
        if name == "check":
            return _check(given.file)
        if name == "dump":
            return _dump(given.file)
        print(f"{given.target}: {back_up(given.file, given.target)} bytes")
    except StorageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def _check(path: Path) -> int:
    content = inspect(path)
    for problem in content.problems:
        print(problem)
    print(
        f"{path}: {content.events} events in {content.segments} segments and "
        f"{content.journal_rows} journal rows, {content.keys} batch keys, "
        f"{content.quarantined} records in quarantine, {len(content.problems)} problems"
    )
    return 1 if content.problems else 0


def _dump(path: Path) -> int:
    problems: list[str] = []
    encode = msgspec.json.Encoder().encode_lines
    for user_ids, timestamps, scores in stored_events(path, problems):
        columns = (user_ids, timestamps.tolist(), scores.tolist())
        sys.stdout.buffer.write(encode([_Event(*row) for row in zip(*columns, strict=True)]))
    sys.stdout.buffer.flush()
    for problem in problems:
        print(f"error: left out: {problem}", file=sys.stderr)
    return 1 if problems else 0
