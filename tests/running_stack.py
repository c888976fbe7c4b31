"""A whole stack, as `make run` starts it, on free ports, and ways to talk to it."""

import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import urllib3

from handler.default_model import default_store

ROOT = Path(__file__).parents[1]
DEFAULT_PORTS = (8080, 8081, 8082, 7070, 7071, 8090)
READY = "medianserve is ready"
EVENT_HEADERS = {"Content-Type": "application/json"}


def free_offset() -> int:
    """Return an offset at which all of a stack's ports are free.

    All below 32,768, where the ports begin that connections take for themselves.
    """
    while True:
        offset = random.randrange(1_000, 24_000)
        probes = []
        try:
            for port in DEFAULT_PORTS:
                probes.append(socket.socket())
                probes[-1].bind(("127.0.0.1", port + offset))
        except OSError:
            continue
        else:
            return offset
        finally:
            for probe in probes:
                probe.close()


class RunningStack:
    """One `python -m stack run` and ways to talk to it."""

    def __init__(
        self,
        var: Path,
        environment: dict[str, str] | None = None,
        folder: Path = ROOT,
        python: Sequence[str] = (sys.executable,),
    ) -> None:
        self.offset = free_offset()
        self.var = var
        self.http = urllib3.PoolManager(timeout=urllib3.Timeout(total=30), retries=False)
        # In this folder the store may hold a model of whoever works here; elsewhere it is ours.
        store = {"TS_MODEL_STORE": str(default_store())} if folder == ROOT else {}
        command = ["run", "--port-offset", str(self.offset), "--var", str(var)]
        self.process = subprocess.Popen(
            [*python, "-m", "stack", *command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **store, **(environment or {})},
        )
        self.output: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def wait_for_line(self, start: str, timeout_seconds: float = 60) -> str:
        """Return the next line that starts so."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            line = self._lines.get(timeout=max(0.01, deadline - time.monotonic()))
            if line is None:
                raise AssertionError(f"the stack ended without '{start}': {self.output}")
            self.output.append(line)
            if line.startswith(start):
                return line

    def rest(self) -> str:
        """Return what an ended stack printed after the last line waited for."""
        self._reader.join(timeout=10)
        return "".join(line for line in iter(self._lines.get_nowait, None))

    def url(self, default_port: int, path: str) -> str:
        return f"http://127.0.0.1:{default_port + self.offset}{path}"

    def post_raw(self, body: bytes, **headers: str) -> urllib3.BaseHTTPResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.request(
            "POST",
            self.url(8080, "/predictions/scorer"),
            body=body,
            headers={**EVENT_HEADERS, **named},
        )

    def post(self, document: Any, **headers: str) -> Any:
        response = self.post_raw(json.dumps(document).encode(), **headers)
        assert response.status == 200, response.data
        return response.json()

    def get(self, path: str) -> Any:
        response = self.http.request("GET", self.url(8090, path))
        assert response.status == 200, response.data
        return response.json()

    def workers(self) -> list[dict[str, Any]]:
        response = self.http.request("GET", self.url(8081, "/models/scorer"))
        workers: list[dict[str, Any]] = response.json()[0]["workers"]
        return workers

    def pid_of(self, name: str) -> int:
        """Return the pid of the process whose command line holds `name`."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            if any(name in argument for argument in process.cmdline()):
                return process.pid
        raise AssertionError(f"no process {name}")

    def kill(self, name: str) -> None:
        os.kill(self.pid_of(name), signal.SIGKILL)

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """Stop it; return its exit status. Asserts that no process is left behind."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal_number)
        status = self.process.wait(timeout=60)
        _, alive = psutil.wait_procs(family, timeout=5)
        assert alive == [], "a process was left behind"
        return status

    def close(self) -> None:
        """End it whatever its state."""
        if self.process.poll() is None:
            self.stop()
        self._reader.join(timeout=10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.http.clear()
