"""What an earlier start in the same folder has left running: it was killed, and could stop nothing.

Processes of a stack carry its folder in their environment. Whoever holds the folder's lock is its
only owner, so all others that name it are left over.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil

VARIABLE = "STACK_VAR"
_STOP_SECONDS = 70  # above what supervisord gives the two, one after the other
# Supervisord first, which stops the others in order and would start them again; then TorchServe.
_ORDER = ("supervisor.supervisord", "org.pytorch.serve.ModelServer", "")


def end_leftovers(var: Path) -> list[str]:
    """End what runs with this folder, in order. Returns a name and a pid for each."""
    ended: dict[int, str] = {}
    for mark in _ORDER:
        processes = [found for found in _of(var) if _has(found, mark)]
        for process in processes:
            with contextlib.suppress(psutil.Error):
                ended[process.pid] = f"{_name(process)} (pid {process.pid})"
                process.terminate()
        _, alive = psutil.wait_procs(processes, timeout=_STOP_SECONDS)
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(alive, timeout=_STOP_SECONDS)
    return list(ended.values())


def _of(var: Path) -> Iterator[psutil.Process]:
    own = psutil.Process()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # another account's, or gone meanwhile
            if process != own and process.environ().get(VARIABLE) == str(var):
                yield process


def _has(process: psutil.Process, mark: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(mark in argument for argument in process.cmdline())
    return False


def _name(process: psutil.Process) -> str:
    """Name it as a person would look for it: its Python module or its Java class."""
    for argument in process.cmdline():
        for known in ("supervisord", "state_service", "ModelServer", "model_service_worker"):
            if known in argument:
                return known
    return process.name()
