"""`python -m stack run` and `python -m stack demo`: both processes on this machine."""

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from handler.default_model import default_store
from handler.errors import ModelError
from handler.packing import has_current_code
from handler.settings import SettingsError, load_settings
from stack.addresses import Addresses, StackError
from stack.credentials import generator_variables
from stack.files import ROOT, SERVER_CONFIG, default_var
from stack.scratch import scratch_folder
from stack.supervision import Stack
from stack.terminal import own_foreground

_POLL_SECONDS = 0.5
_PROBE_EVERY_POLLS = 20
_DEMO_SECONDS = 10
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # the last: a closed terminal


class _StopRequestedError(Exception):
    """SIGTERM or Ctrl-C: a clean end with status 0."""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m stack",
        description="Run TorchServe and the state service together, until Ctrl-C.",
    )
    parser.add_argument("command", choices=["run", "demo"], help="demo: run, load, verify, stop")
    parser.add_argument("--port-offset", type=int, default=0, help="added to every port (0)")
    parser.add_argument(
        "--var", type=Path, help="folder for the database and the logs (var, or one an offset)"
    )
    options = parser.parse_args()
    os.umask(0o077)  # scores, logs and keys: what is created here is for this account alone
    for number in _STOP_SIGNALS:
        signal.signal(number, _request_stop)
    try:
        with own_foreground(), contextlib.ExitStack() as exits:
            load_settings({}, os.environ)  # a worker would refuse them too, but far from here
            addresses = Addresses.load(SERVER_CONFIG, os.environ, options.port_offset)
            work = _watch if options.command == "run" else _demo
            if options.command == "demo":  # its events are for the default model
                os.environ.setdefault("TS_MODEL_STORE", str(default_store()))
            var = options.var or (
                default_var(options.port_offset)
                if options.command == "run"
                else exits.enter_context(scratch_folder("demo"))[0]
            )
            sys.exit(_run(Stack(addresses, var, _tell), work))
    except (StackError, SettingsError, ModelError) as error:
        sys.exit(f"error: {error}")
    except _StopRequestedError:
        sys.exit(130 if options.command == "demo" else 0)  # an interrupted demo shows nothing


def _run(stack: Stack, work: Callable[[Stack], int]) -> int:
    """Start the stack, do the work, stop the stack."""
    with contextlib.ExitStack() as exits:
        print("starting TorchServe and the state service", flush=True)
        with _signals_deferred():
            exits.enter_context(stack)
            exits.callback(_announce_stop)
        print(f"the model is {stack.model}", flush=True)
        if note := note_on_handler(stack.packed):
            _tell(note)
        stack.wait_until_ready()
        return work(stack)


@contextlib.contextmanager
def _signals_deferred() -> Iterator[None]:
    """Act on a request to stop only after the block: a half-started stack could not be stopped."""
    requested: list[int] = []
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda number, _frame: requested.append(number))
    try:
        yield
    finally:
        for number in _STOP_SIGNALS:
            signal.signal(number, _request_stop)
    if requested:
        raise _StopRequestedError


def note_on_handler(archive: Path) -> str:
    """Say how to pack an archive anew where its handler is not the one that is here; else ""."""
    if has_current_code(archive):
        return ""
    command = shlex.join(["python", "-m", "handler.archive", "--again", "--output", str(archive)])
    return f"note: it has another version's handler; stop, pack it anew and start again: {command}"


def _tell(sentence: str) -> None:
    print(sentence, flush=True)


def _announce_stop() -> None:
    for number in _STOP_SIGNALS:  # a second Ctrl-C must not cut the clean stop short
        signal.signal(number, signal.SIG_IGN)
    print("medianserve is stopping", flush=True)


def _watch(stack: Stack) -> int:
    """Tell when the stack is ready and what happens to it, for ever."""
    _tell_ready(stack)
    ready, polls = True, 0
    while True:
        time.sleep(_POLL_SECONDS)
        polls += 1
        for change in stack.changes():
            print(change, flush=True)
            ready = False
        if ready and polls % _PROBE_EVERY_POLLS:
            continue
        was_ready, ready = ready, stack.is_ready()
        if was_ready and not ready:
            print(f"medianserve is not ready; the logs in {stack.log_folder} say why", flush=True)
        elif ready and not was_ready:
            print("medianserve is ready again", flush=True)


def _demo(stack: Stack) -> int:
    """Load the stack for some seconds and compare every user's median."""
    _tell_ready(stack)
    return subprocess.run(  # noqa: S603 - our own interpreter
        [
            sys.executable, "-m", "generator", "run",
            "--url", stack.addresses.inference.url,
            "--state-url", stack.addresses.state.url,
            "--duration", str(_DEMO_SECONDS),
            "--verify",
        ],
        cwd=ROOT,
        env={**os.environ, **generator_variables(os.environ, ROOT, stack.key_file)},
        check=False,
    ).returncode  # fmt: skip


def _tell_ready(stack: Stack) -> None:
    addresses = stack.addresses
    print(
        f"medianserve is ready: events to {addresses.inference.url}/predictions/scorer, "
        f"medians from {addresses.state.url}/users/<user_id>/median, "
        f"API docs at {addresses.state.url}/docs, all of it live at {addresses.state.url}/",
        flush=True,
    )


def _request_stop(_number: int, _frame: FrameType | None) -> None:
    raise _StopRequestedError


if __name__ == "__main__":
    main()
