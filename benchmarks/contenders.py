"""The services measured, each started for real on free ports and ended afterwards.

None sees `STATE_*`, `HANDLER_*` or `TS_*` variables of the shell: all run with their defaults,
medianserve with the durability it has by default, and on a database of its own.
"""

import contextlib
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

from handler.archive import MODEL_NAME
from handler.default_model import default_store, default_weights
from handler.packing import DEFAULT_CONFIG
from stack.addresses import Addresses, StackError
from stack.files import ROOT, SERVER_CONFIG
from stack.ports import check_free
from stack.workers import ready_workers, scale

ECHO_HANDLER = Path(__file__).with_name("peers") / "echo_handler.py"
_READY = "medianserve is ready"
_START_SECONDS = 120.0
_STOP_SECONDS = 60.0
_POLL_SECONDS = 0.1
_OURS = ("STATE_", "HANDLER_", "TS_")


class StartError(Exception):
    """A contender did not start; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Running:
    """A contender that is ready: where events go, and where it is asked what it holds.

    `questions_url` is None for one that keeps nothing.
    """

    pid: int
    ingest_url: str
    questions_url: str | None

    def accepted(self) -> int | None:
        """Return how many events have been counted since the start."""
        if self.questions_url is None:
            return None
        return int(_get(f"{self.questions_url}/stats")["accepted"])

    def median(self, user_id: str) -> float | None:
        """Return the median of a user's window."""
        median: float | None = _get(f"{self.questions_url}/users/{user_id}/median")["median"]
        return median


@dataclass(frozen=True, slots=True)
class Contender:
    """A service by its name; `start(workers)` gives it, ready, and ends it.

    `worker_counts` says with how many workers it can run; `most_events` a request it is given,
    and `why_no_more`.
    """

    name: str
    start: Callable[[int], contextlib.AbstractContextManager[Running]]
    scales: bool = False
    json_only: bool = True
    most_events: int = 10_000
    why_no_more: str = ""


def _get(url: str) -> Any:  # noqa: ANN401 - JSON
    answer = urllib3.request("GET", url, timeout=30.0)
    if answer.status != 200:
        raise StartError(f"GET {url} answers {answer.status}")
    return answer.json()


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave out what would configure the contenders, a database of the user's own for one."""
    return {name: value for name, value in environment.items() if not name.startswith(_OURS)}


@contextlib.contextmanager
def _process(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[Any]:
    """Run a command until the block ends, then end it in good order."""
    with (
        log.open("w", encoding="utf-8") as output,
        subprocess.Popen(  # noqa: S603 - our own programs
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(process: "subprocess.Popen[bytes]", log: Path, ready: Callable[[], bool]) -> None:
    """Wait until `ready`. Raises `StartError` with what the process has said instead."""
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(encoding="utf-8").splitlines()[-15:]
            raise StartError("\n".join(["it does not start:", *said]))
        time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def _fastapi_peer(module: str) -> Iterator[Running]:
    """Run one of the peers in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="medianserve-peer-") as scratch:
        log = Path(scratch, "log")
        command = [sys.executable, "-m", f"benchmarks.peers.{module}", str(default_weights())]
        with _process(command, log, clean_environment(os.environ)) as process:

            def address() -> str | None:
                found = re.search(r"^http://\S+$", log.read_text(encoding="utf-8"), re.MULTILINE)
                return found and found.group()

            _wait(process, log, lambda: address() is not None)
            url = str(address())
            yield Running(process.pid, f"{url}/ingest", url)


def free_addresses() -> tuple[int, Addresses]:
    """Return an offset at which all of a stack's ports are free, and its addresses."""
    while True:
        offset = random.randrange(1_000, 24_000)  # noqa: S311 - no secret
        addresses = Addresses.load(SERVER_CONFIG, {}, offset)
        with contextlib.suppress(StackError):
            check_free(addresses)
            return offset, addresses


@contextlib.contextmanager
def run_medianserve(workers: int, **settings: str) -> Iterator[Running]:
    """Run the stack as `make run` does, on a database of its own; `settings` are its variables."""
    offset, addresses = free_addresses()
    with tempfile.TemporaryDirectory(prefix="medianserve-bench-") as var:
        log = Path(var, "stack.log")
        command = [sys.executable, "-m", "stack", "run"]
        command += ["--port-offset", str(offset), "--var", var]
        environment = {**clean_environment(os.environ), **settings}
        if "TS_MODEL_STORE" not in settings:  # not what somebody has packed for a model of theirs
            environment["TS_MODEL_STORE"] = str(default_store())
        with _process(command, log, environment) as process:
            _wait(process, log, lambda: _READY in log.read_text(encoding="utf-8"))
            scale(addresses.management.url, workers)
            yield Running(
                process.pid,
                f"{addresses.inference.url}/predictions/{MODEL_NAME}",
                addresses.state.url,
            )


@contextlib.contextmanager
def _echo(workers: int) -> Iterator[Running]:
    """Run TorchServe with our settings and a handler that does nothing."""
    _, addresses = free_addresses()
    with tempfile.TemporaryDirectory(prefix="medianserve-echo-") as folder:
        scratch = Path(folder)
        build_echo_archive(scratch)
        environment = {
            **clean_environment(os.environ),
            **addresses.environment(),
            "TS_MODEL_STORE": folder,
        }
        log = scratch / "torchserve.log"
        temporary = scratch / "run"
        command = [sys.executable, "-m", "stack.torchserve", "--temporary", str(temporary)]
        with _process(command, log, environment) as process:
            prediction = f"{addresses.inference.url}/predictions/{MODEL_NAME}"
            _wait(process, log, lambda: _is_up(addresses.management.url))
            scale(addresses.management.url, workers)
            yield Running(process.pid, prediction, None)


def _is_up(management_url: str) -> bool:
    with contextlib.suppress(Exception):  # not yet listening, or no model yet
        return ready_workers(management_url) > 0
    return False


def build_echo_archive(store: Path) -> None:
    """Pack the echo handler under our model's name, with our model's batching."""
    config = store / "model-config.yaml"
    shutil.copy(DEFAULT_CONFIG, config)
    private_tmp = store / "tmp"  # the archiver deletes $TMPDIR/<model name> before it starts
    private_tmp.mkdir()
    subprocess.run(  # noqa: S603 - our environment's own tool
        [
            str(Path(sys.executable).with_name("torch-model-archiver")),
            "--model-name", MODEL_NAME,
            "--version", "1.0",
            "--handler", str(ECHO_HANDLER),
            "--config-file", str(config),
            "--export-path", str(store),
        ],
        check=True,
        capture_output=True,
        env={**os.environ, "TMPDIR": str(private_tmp)},
    )  # fmt: skip


OURS, ECHO, REFERENCE, REWRITE = "medianserve", "echo", "reference", "rewrite"

CONTENDERS = (
    Contender(
        REFERENCE,
        lambda _: _fastapi_peer("reference"),
        most_events=100,
        why_no_more="at some 2,000 to 5,000 events/s hardly an answer would come in time",
    ),
    Contender(
        REWRITE,
        lambda _: _fastapi_peer("rewrite"),
        most_events=1000,
        why_no_more="three such requests a second would say nothing that 1,000 events do not",
    ),
    Contender(ECHO, _echo, scales=True, json_only=False),
    Contender(OURS, run_medianserve, scales=True, json_only=False),
)
