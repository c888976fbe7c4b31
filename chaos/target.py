"""The stack that is broken: `python -m stack run`, its processes, and starting it again."""

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Self

import psutil

from benchmarks.contenders import clean_environment
from benchmarks.usage import role_of
from handler.archive import MODEL_NAME
from stack.addresses import Addresses, StackError
from stack.files import ROOT, SERVER_CONFIG
from stack.leftovers import processes_of
from stack.ports import check_free

WORKER, JVM, STATE = "workers", "JVM", "state service"  # roles, as benchmarks.usage names them
_STOP_SECONDS = 60.0
# Below the ports that the system gives to outgoing connections: while a stack is down, none of
# these may take a port of its.
_OFFSETS = range(1_000, 24_000)


class TargetError(Exception):
    """The stack cannot be started or is not as it must be; the message says how."""


class Ports(NamedTuple):
    """Where a stack listens, and how far that is from where it would by default."""

    offset: int
    addresses: Addresses


class Target:
    """One stack with its own ports and folder. Use as a context manager: it ends everything."""

    def __init__(
        self,
        ports: Ports,
        var: Path,
        store: Path,
        extra_archives: Iterable[str],
        settings: Mapping[str, str],
    ) -> None:
        """Start nothing yet. `settings` are variables.

        `store` has the model; `extra_archives` are the files in it that can be registered besides.
        """
        self.addresses = ports.addresses
        self._offset = ports.offset
        self._store, self._extra_archives = store, tuple(extra_archives)
        self.var = var
        self.starts = 0
        self._scratch = var.parent / "t"  # short: sockets lie below it
        self._environment = {
            **clean_environment(os.environ),
            "TS_MODEL_STORE": str(store),
            "TS_ENABLE_MODEL_API": "true",
            "TMPDIR": str(self._scratch),
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._scratch.mkdir(exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
        self.kill_everything()
        shutil.rmtree(self._scratch, ignore_errors=True)

    @property
    def prediction_url(self) -> str:
        """Where events go."""
        return f"{self.addresses.inference.url}/predictions/{MODEL_NAME}"

    def offer_archives(self) -> None:
        """Put the other archives where TorchServe looks: a start takes the model alone."""
        for name in self._extra_archives:
            shutil.copy2(self._store / name, self.var / "model_store")

    @property
    def database(self) -> Path:
        """The state service's file."""
        return self.var / "state.db"

    @property
    def log(self) -> Path:
        """What `stack run` says; beside `var`, so that a full disk does not reach it."""
        return self.var.parent / "stack.log"

    def start(self) -> None:
        """Start the stack, not waiting until it is ready."""
        self.starts += 1
        command = [sys.executable, "-m", "stack", "run"]
        command += ["--port-offset", str(self._offset), "--var", str(self.var)]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def runs(self) -> bool:
        """Whether `stack run` has not ended."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> int:
        """Stop it in good order; return its exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(_STOP_SECONDS)

    def kill_everything(self) -> None:
        """Kill -9 every process of this stack, at once; none is left."""
        family = [*self.family(), *processes_of(self.var)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self._process is not None:
            self._process.wait(_STOP_SECONDS)
        psutil.wait_procs(family, timeout=_STOP_SECONDS)

    def family(self) -> list[psutil.Process]:
        """Return `stack run` and its descendants."""
        if self._process is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._process.pid)
            return [root, *root.children(recursive=True)]
        return []

    def of_role(self, role: str) -> list[psutil.Process]:
        """Return the processes that do this, oldest first."""
        found = []
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if role_of(process.cmdline()) == role:
                    found.append(process)
        return sorted(found, key=lambda process: process.pid)

    def supervisord(self) -> list[psutil.Process]:
        """Return supervisord."""
        found = []
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if "supervisor.supervisord" in process.cmdline():
                    found.append(process)
        return found

    def resident_mib(self) -> dict[str, float]:
        """Return the resident size of each process by name: what it does and its pid."""
        sizes = {}
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                name = f"{role_of(process.cmdline())} {process.pid}"
                sizes[name] = process.memory_info().rss / 2**20
        return sizes


def send_signal(process: psutil.Process, number: signal.Signals) -> bool:
    """Signal a process; return whether it was there."""
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


def limit_files(process: psutil.Process, limit_bytes: int | None) -> None:
    """Let a process write no file beyond so many bytes, or lift that: as a full disk would do."""
    soft = resource.RLIM_INFINITY if limit_bytes is None else limit_bytes
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (soft, hard))


def free_ports() -> Ports:
    """Return ports for a stack that nothing listens on. Raises `TargetError`."""
    deadline = time.monotonic() + 10
    while True:
        offset = random.choice(_OFFSETS)  # noqa: S311 - no secret
        addresses = Addresses.load(SERVER_CONFIG, {}, offset)
        try:
            check_free(addresses)
        except StackError as error:
            if time.monotonic() > deadline:
                raise TargetError(str(error)) from error
        else:
            return Ports(offset, addresses)
