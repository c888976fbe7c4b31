"""The real stack, started as `make run` does, on free ports and a database of its own."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.contenders import clean_environment, free_addresses
from benchmarks.usage import role_of
from handler.default_model import default_store

_READY = "medianserve is ready"
_START_SECONDS = 120.0
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Servers:
    """A stack that is ready: where it listens, what it logs, what it weighs."""

    pid: int
    scorer: tuple[str, int]
    state: tuple[str, int]
    logs: tuple[Path, ...]

    def resident_mib(self) -> dict[str, float]:
        """Return resident sizes, in MiB, by role."""
        sizes: dict[str, float] = {}
        for process in psutil.Process(self.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                role = role_of(process.cmdline())
                sizes[role] = sizes.get(role, 0.0) + process.memory_info().rss / 2**20
        return sizes

    def pids(self) -> frozenset[int]:
        """Return the processes there are: another set means that one died."""
        return frozenset(p.pid for p in psutil.Process(self.pid).children(recursive=True))


@contextlib.contextmanager
def running_stack(**settings: str) -> Iterator[Servers]:
    """Run the stack until the block ends; `settings` are environment variables of it."""
    offset, addresses = free_addresses()
    with tempfile.TemporaryDirectory(prefix="medianserve-fuzz-") as folder:
        var, said = Path(folder, "var"), Path(folder, "stack.log")
        environment = {
            **clean_environment(os.environ),
            "TS_MODEL_STORE": str(default_store()),
            **settings,
        }
        command = [sys.executable, "-m", "stack", "run"]
        command += ["--port-offset", str(offset), "--var", str(var)]
        with (
            said.open("w", encoding="utf-8") as output,
            subprocess.Popen(  # noqa: S603 - our own program
                command, cwd=_ROOT, env=environment, stdout=output, stderr=output
            ) as process,
        ):
            try:
                _wait(process, said)
                logs = (var / "log/state-service.log", var / "log/torchserve.log")
                yield Servers(
                    process.pid,
                    (addresses.inference.host, addresses.inference.port),
                    (addresses.state.host, addresses.state.port),
                    logs,
                )
            finally:
                process.terminate()
                process.wait(60)


def _wait(process: subprocess.Popen[bytes], said: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while _READY not in said.read_text(encoding="utf-8"):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the stack does not start: {said.read_text(encoding='utf-8')}")
        time.sleep(0.1)
