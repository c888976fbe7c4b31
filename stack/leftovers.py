"""What an earlier start in the same folder has left running: it was killed, and could stop nothing.

Processes of a stack carry its folder in their environment. Whoever holds the folder's lock is its
only owner, so all others that name it are left over. The variable alone is no proof, for a shell
may have been given it: the command line must also be one that only a stack uses.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

VARIABLE = "STACK_VAR"
_STOP_SECONDS = 70  # above what supervisord gives the two, one after the other
# Supervisord first, which stops the others in order and would start them again; then TorchServe.
_FIRST = ("supervisord", "ModelServer")


def end_leftovers(var: Path) -> Iterator[str]:
    """End what runs with this folder, in order. Yields a name and a pid for each, once ended."""
    for wanted in (*_FIRST, None):
        names = {process: name for process, name in _named(var) if wanted is None or name == wanted}
        for process in names:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        _, alive = psutil.wait_procs(names, timeout=_STOP_SECONDS)
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(alive, timeout=_STOP_SECONDS)
        yield from (f"{name} (pid {process.pid})" for process, name in names.items())


def processes_of(var: Path) -> list[psutil.Process]:
    """Return what a stack with this folder has started; never this process or one above it."""
    return [process for process, _ in _named(var)]


def _named(var: Path) -> Iterator[tuple[psutil.Process, str]]:
    own = psutil.Process()
    spared = {own, *own.parents()}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # another account's, or gone meanwhile
            name = _name(process.cmdline())
            if name and process not in spared and process.environ().get(VARIABLE) == str(var):
                yield process, name


def _name(command: Sequence[str]) -> str:
    """Name what only a stack starts by such a command line, as a person looks for it; else ""."""
    match command:
        case [_, "-m", "stack.tied", module, *_]:
            return module.rpartition(".")[2]
        case [_, script, "--sock-type", *_] if script.endswith("model_service_worker.py"):
            return "model_service_worker"
        case [_, *arguments] if "org.pytorch.serve.ModelServer" in arguments:
            return "ModelServer"
    return ""
