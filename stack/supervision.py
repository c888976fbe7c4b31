"""One supervisord and the two processes it watches."""

import contextlib
import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, cast
from xmlrpc.client import ServerProxy

import psutil
import urllib3
from supervisor.xmlrpc import SupervisorTransport

from handler.identity import ModelIdentity
from handler.packing import identity_of
from stack.addresses import Addresses, StackError
from stack.credentials import KEY_FILE
from stack.files import IN_CLONE, ROOT, SERVER_CONFIG, SUPERVISOR_CONFIG, read_property
from stack.leftovers import VARIABLE, end_leftovers
from stack.log_lines import readable
from stack.ports import check_free
from stack.probe import worker_answers
from stack.scratch import scratch_folder
from stack.tied import PARENT

PROCESSES = ("state-service", "torchserve")
# What TorchServe logs when a worker has twice failed to load the model; it goes on trying.
_WORKER_FAILED = "Auto recovery failed again"
_STOP_SECONDS = 30
_TIED = (sys.executable, "-m", "stack.tied")


class Stack:
    """Both processes, from start to stop. Use as a context manager: it always stops them."""

    def __init__(self, addresses: Addresses, var: Path, tell: Callable[[str], None]) -> None:
        """Start nothing yet. `tell` is given a sentence for each leftover that had to be ended."""
        self.addresses = addresses
        self._tell = tell
        self._var = var.resolve()
        self.packed = Path()  # the archive that was copied for this stack
        self._http = urllib3.PoolManager(timeout=urllib3.Timeout(total=5), retries=False)
        self._exits = contextlib.ExitStack()
        self._pids: dict[str, int] = {}
        self._log_starts: dict[str, int] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as exits:
            self._start(exits)
            self._exits = exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def _start(self, exits: contextlib.ExitStack) -> None:
        try:
            self.log_folder.mkdir(parents=True, exist_ok=True)
            lock = exits.enter_context((self._var / "lock").open("w"))
        except OSError as error:
            raise StackError(f"cannot write to {self._var}: {error.strerror} (--var)") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StackError(
                f"{self._var} is used by another stack: stop that, or start beside it on other "
                "ports: make run PORT_OFFSET=100"
            ) from error
        self.packed = self._find_archive()
        for process in end_leftovers(self._var):
            self._tell(f"an earlier start was killed and had left {process} running: ended")
        check_free(self.addresses)
        store = self._own_store()
        self._log_starts = {
            name: path.stat().st_size
            for name in ("supervisord", *PROCESSES)
            if (path := self._log_path(name)).exists()
        }
        # Not in var: this is where the sockets are, and their paths must be short.
        scratch, owned = exits.enter_context(scratch_folder("run"))
        self._socket = scratch / "supervisor.sock"
        (scratch / "log").symlink_to(self.log_folder)
        own_words = exits.enter_context(self._log_path("supervisord").open("ab"))
        exits.callback(self._stop_orphans)
        torchserve = ["stack.torchserve", "--temporary", str(scratch), "--keys", str(self._var)]
        self._supervisord = subprocess.Popen(  # noqa: S603 - our own interpreter
            [*_TIED, "supervisor.supervisord", "--configuration", str(SUPERVISOR_CONFIG)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=own_words,
            stderr=subprocess.STDOUT,
            pass_fds=[owned.fileno()],  # the folder is in use as long as one of us lives
            # Out of the terminal's reach: Ctrl-C is for us, and we stop things in order.
            start_new_session=True,
            env={
                "STATE_DATABASE": str(self._var / "state.db"),
                "STATE_TORCHSERVE_KEY_FILE": str(self.key_file),
                "HANDLER_SPOOL": str(self._var / "spool.db"),
                "HANDLER_STATE_URL": self.addresses.state.url,
                **os.environ,
                **self.addresses.environment(),
                "TS_MODEL_STORE": str(store),
                "STACK_SCRATCH": str(scratch),
                VARIABLE: str(self._var),
                PARENT: str(os.getpid()),
                "STACK_STATE_SERVICE": shlex.join([*_TIED, "state_service"]),
                "STACK_TORCHSERVE": shlex.join([*_TIED, *torchserve]),
            },
        )
        exits.callback(self._stop_supervisord)

    @property
    def model(self) -> ModelIdentity:
        """Which model this stack serves. Raises `ModelError` when the archive is none of ours."""
        return identity_of(self._archive)

    @property
    def _archive(self) -> Path:
        return self._var / "model_store" / "scorer.mar"

    def _find_archive(self) -> Path:
        """Return the archive to load. Raises `StackError` when it lies where the copy goes."""
        archive = _archive()
        if self._archive.parent.resolve() in archive.resolve().parents:
            raise StackError(
                f"TS_MODEL_STORE is {archive.parent}, where a stack keeps its copy and removes "
                f"what else is there: move {archive.name} to another folder, and name that"
            )
        return archive

    def _own_store(self) -> Path:
        """Keep the archive as it is now: TorchServe reads it again when it is started again.

        By then another may have been packed in its place, for another stack perhaps.
        """
        store = self._archive.parent
        fresh = store.with_name("model_store.new")
        try:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            shutil.copy2(self.packed, fresh)
            if store.exists():
                shutil.rmtree(store)
            fresh.rename(store)
        except OSError as error:
            raise StackError(f"cannot copy {self.packed} to {store}: {error.strerror}") from error
        return store

    @property
    def log_folder(self) -> Path:
        """Where both processes log."""
        return self._var / "log"

    @property
    def key_file(self) -> Path:
        """Where TorchServe writes its keys, when its token authorization is on."""
        return self._var / KEY_FILE

    def _stop_supervisord(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._supervisord.send_signal(signal.SIGTERM)
        self._supervisord.wait()

    def _stop_orphans(self) -> None:
        """End what a killed supervisord has left behind, in its order; usually nothing."""
        for name in reversed(PROCESSES):
            with contextlib.suppress(KeyError, psutil.NoSuchProcess):
                orphan = psutil.Process(self._pids[name])
                if orphan.environ().get(VARIABLE) != str(self._var):
                    continue  # the number has been given to another process
                orphan.terminate()
                _, alive = psutil.wait_procs([orphan], timeout=_STOP_SECONDS)
                for process in alive:
                    process.kill()

    def wait_until_ready(self, timeout_seconds: float = 120.0) -> None:
        """Wait until a dry-run prediction answers. Raises `StackError` with the log's end."""
        deadline = time.monotonic() + timeout_seconds
        while not self.is_ready():
            for name, info in self._processes().items():
                if info["statename"] in ("BACKOFF", "EXITED", "FATAL"):
                    raise StackError(f"{name} does not start{self._end_of_log(name, info)}")
            if _WORKER_FAILED in self._log_of("torchserve"):
                raise StackError(f"the model does not load{self._end_of_log('torchserve')}")
            if time.monotonic() > deadline:
                raise StackError(
                    f"not ready after {timeout_seconds:.0f} seconds{self._end_of_log('torchserve')}"
                )
            time.sleep(0.25)
        list(self.changes())  # the pids of the start are not news

    def is_ready(self) -> bool:
        """Whether a worker answers predictions and the state service is ready for scores."""
        try:
            state = self._http.request("GET", f"{self.addresses.state.url}/readyz")
        except urllib3.exceptions.HTTPError:
            return False
        return state.status == 200 and worker_answers(self.addresses.inference.url, self.key_file)

    def changes(self) -> Iterator[str]:
        """Say what has happened to the processes since the last call, a sentence each.

        Raises `StackError` when one has been given up or supervisord itself is gone.
        """
        for name, info in self._processes().items():
            if info["statename"] == "FATAL":
                raise StackError(f"{name} does not start any more{self._end_of_log(name, info)}")
            pid, before = info["pid"], self._pids.get(name)
            if pid and pid != before:
                self._pids[name] = pid
                if before is not None:
                    yield f"{name} ended unexpectedly and was started again (pid {pid})"

    def _processes(self) -> dict[str, dict[str, Any]]:
        if self._supervisord.poll() is not None:
            raise StackError(f"supervisord ended{self._end_of_log('supervisord')}")
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        try:
            with ServerProxy("http://127.0.0.1", transport=transport) as proxy:
                rows = cast("list[dict[str, Any]]", proxy.supervisor.getAllProcessInfo())
        except OSError:  # supervisord has not opened its socket yet
            return {}
        return {row["name"]: row for row in rows}

    def _end_of_log(self, name: str, info: Mapping[str, Any] | None = None, lines: int = 15) -> str:
        """Say why, to follow a sentence: supervisord's reason, and the last of the process' log."""
        reason = f": {info['spawnerr']}" if info and info["spawnerr"] else ""
        logged = [readable(line) for line in self._log_of(name).splitlines()[-lines:]]
        if not logged:
            return reason or ", and it has logged nothing"
        return "\n".join([f"{reason}:", *logged, f"(all of it: {self._log_path(name)})"])

    def _log_of(self, name: str) -> str:
        """Return what a process has logged since this stack was started."""
        try:
            with self._log_path(name).open(errors="replace") as log:
                log.seek(self._log_starts.get(name, 0))
                return log.read()
        except FileNotFoundError:
            return ""

    def _log_path(self, name: str) -> Path:
        return self.log_folder / f"{name}.log"


def _archive() -> Path:
    """Return the archive to load, if it is one: TorchServe would try a damaged one for ever."""
    store = os.environ.get("TS_MODEL_STORE") or read_property(SERVER_CONFIG, "model_store")
    archive = ROOT / (store or "") / "scorer.mar"
    if not zipfile.is_zipfile(archive):
        build = (
            "pack your model (make model WEIGHTS=… MODEL_CONFIG=… INCLUDE=…) or the default one "
            "(make default-model)"
            if IN_CLONE
            else "pack one with python -m handler.archive, the default one after python -m "
            "handler.create_model"
        )
        raise StackError(f"{archive} is missing or damaged: {build}")
    return archive
