"""Load from outside: `wrk`, which sends as fast as it is answered, on so many connections."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.bodies import Bodies

_TIMEOUT_SECONDS = 30
_MARGIN_SECONDS = 60  # for wrk to read the bodies, and to end

# Each request is put together before the first is sent; wrk's main state runs `done` alone.
_SCRIPT = """
local requests, turn = {}, 0
function init(args)
  for number = 0, COUNT - 1 do
    local file = assert(io.open(FOLDER .. "/" .. number, "rb"))
    requests[number] = wrk.format("POST", nil, HEADERS, file:read("*a"))
    file:close()
  end
end
function request()
  turn = (turn + 1) % COUNT
  return requests[turn]
end
function done(summary, latency, _)
  local file = assert(io.open(FOLDER .. "/summary.json", "w"))
  file:write(string.format(
    '{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "longest": %d, ' ..
    '"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}',
    summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), latency.max,
    summary.errors.connect, summary.errors.read, summary.errors.write,
    summary.errors.status, summary.errors.timeout))
  file:close()
end
"""


class LoadError(Exception):
    """No load can be made; the message is one sentence with the way out."""


@dataclass(frozen=True, slots=True)
class Load:
    """What was sent and answered: `answered` counts answers below 400; times in milliseconds."""

    answered: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: dict[str, int] = field(default_factory=dict)
    never_sent: int = 0  # open loop alone: due, but not sent when the time was over


# Send these bodies to this address on so many connections for so many seconds.
Driver = Callable[[str, Bodies, int, int], Load]


def wrk(url: str, bodies: Bodies, connections: int, seconds: int) -> Load:
    """Drive `url` by wrk's one thread. Raises `LoadError`."""
    program = shutil.which("wrk")
    if program is None:
        raise LoadError("wrk is missing: apt install wrk")
    with tempfile.TemporaryDirectory(prefix="medianserve-wrk-") as folder:
        for number, body in enumerate(bodies.encoded):
            Path(folder, str(number)).write_bytes(body)
        script = Path(folder, "script.lua")
        script.write_text(
            f"local FOLDER, COUNT = {json.dumps(folder)}, {len(bodies.encoded)}\n"
            f"local HEADERS = {_lua_table(bodies.headers)}\n{_SCRIPT}",
            encoding="utf-8",
        )
        command = [
            program, "--threads", "1", "--connections", str(connections),
            "--duration", f"{seconds}s", "--timeout", f"{_TIMEOUT_SECONDS}s",
            "--script", str(script), url,
        ]  # fmt: skip
        try:
            ended = subprocess.run(  # noqa: S603 - a found program, our arguments
                command,
                capture_output=True,
                text=True,
                timeout=seconds + _MARGIN_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LoadError(f"wrk did not finish: {error}") from error
        said = ended.stderr.strip() or ended.stdout.strip()
        if ended.returncode:
            raise LoadError(f"wrk failed: {said}")
        try:
            summary = json.loads(Path(folder, "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise LoadError(f"wrk left no summary: {said}") from error
    return read_summary(summary)


def _lua_table(headers: dict[str, str]) -> str:
    rows = (f"[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items())
    return f"{{{', '.join(rows)}}}"


def read_summary(summary: dict[str, object]) -> Load:
    """Read what the script's `done` has written."""
    numbers: dict[str, int] = {
        name: value for name, value in summary.items() if isinstance(value, int)
    }
    found = summary["errors"]
    assert isinstance(found, dict)
    return Load(
        answered=numbers["requests"] - found["status"],
        seconds=numbers["microseconds"] / 1e6,
        p50_ms=numbers["p50"] / 1e3,
        p99_ms=numbers["p99"] / 1e3,
        errors={name: count for name, count in found.items() if count},
    )
