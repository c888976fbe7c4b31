"""What a killed start leaves behind is ended and removed by the next; what is in use is not."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stack import leftovers
from stack.leftovers import end_leftovers
from stack.scratch import scratch_folder

ROOT = Path(__file__).parents[2]
HOLD = """
from stack.scratch import scratch_folder
with scratch_folder("test") as (folder, _):
    print(folder, flush=True)
    input()
"""


def python(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env={**os.environ, **environment}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


def first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="t-"))  # short: it is where sockets are
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    shutil.rmtree(folder)


def test_a_killed_owner_s_folder_is_removed_by_the_next(temporary: Path) -> None:
    with python("-c", HOLD) as killed, python("-c", HOLD) as alive:
        abandoned, in_use = Path(first_line(killed)), Path(first_line(alive))
        killed.kill()
        killed.wait()
        assert abandoned.is_dir()
        (temporary / "medianserve-of-somebody-else").mkdir()
        with scratch_folder("test") as (own, _):
            assert set(temporary.iterdir()) == {
                own, in_use, temporary / "medianserve-of-somebody-else"
            }  # fmt: skip
        assert not own.exists()
        alive.communicate("\n")
    assert not in_use.exists()


def test_a_temporary_folder_that_supervisor_cannot_read_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a%b").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "a%b"))
    with scratch_folder("test") as (folder, _):
        assert folder.parent == Path("/tmp")  # noqa: S108 - where it always is


def test_a_temporary_folder_is_used_as_long_as_every_socket_can_be_bound_in_it(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    for length in range(len(str(temporary)) + 2, 90):
        root = temporary / ("x" * (length - len(str(temporary)) - 1))
        root.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(root))
        with scratch_folder("run") as (folder, _):
            # Supervisord binds its socket under a name with its pid, and then renames it.
            fits = can_bind(root / folder.name / "supervisor.sock.4194304")
            assert (folder.parent == root) == fits
            used.append(fits)
    assert used == sorted(used, reverse=True)
    assert set(used) == {True, False}


def can_bind(path: Path) -> bool:
    path.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(str(path))
        except OSError:
            return False
    return True


SLEEP = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEP


@pytest.fixture
def left(tmp_path: Path) -> Iterator[list["subprocess.Popen[str]"]]:
    """Leave four processes of this folder, a stubborn one among them, and one of another."""
    (tmp_path / "supervisor").mkdir()
    (tmp_path / "supervisor" / "__init__.py").touch()
    (tmp_path / "supervisor" / "supervisord.py").write_text(SLEEP)
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    (tmp_path / "model_service_worker.py").write_text(SLEEP)
    environment = {
        "PYTHONPATH": str(tmp_path),
        "STACK_VAR": str(tmp_path),
        "STACK_PARENT": str(os.getpid()),
    }
    worker = (str(tmp_path / "model_service_worker.py"), "--sock-type", "unix")
    elsewhere = {**environment, "STACK_VAR": f"{tmp_path}/offset-100"}
    processes = [
        python("-m", "stack.tied", "stubborn", **environment),
        python("-m", "stack.tied", "supervisor.supervisord", **environment),
        python("-c", SLEEP, "org.pytorch.serve.ModelServer", **environment),
        python(*worker, **environment),
        python(*worker, **elsewhere),
    ]
    for process in processes:
        assert first_line(process) == "up"
    yield processes
    for process in processes:
        with process:
            process.kill()


def test_what_runs_with_a_folder_is_ended_and_named_the_supervisor_first(
    tmp_path: Path, left: list["subprocess.Popen[str]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "_STOP_SECONDS", 1)
    stubborn, supervisor, server, worker, other = left
    ended = list(end_leftovers(tmp_path))
    assert ended[:2] == [f"supervisord (pid {supervisor.pid})", f"ModelServer (pid {server.pid})"]
    assert sorted(ended[2:]) == [
        f"model_service_worker (pid {worker.pid})",
        f"stubborn (pid {stubborn.pid})",
    ]
    for process in (stubborn, supervisor, server, worker):
        assert not psutil.pid_exists(process.pid)
    assert other.poll() is None
    assert list(end_leftovers(tmp_path)) == []


def test_a_process_that_only_has_the_variable_is_nobody_s_leftover(tmp_path: Path) -> None:
    """Such as a shell where it was exported, an editor, and the start itself."""
    (tmp_path / "model_service_worker.py").write_text(SLEEP)
    commands = [
        ("-c", SLEEP),
        ("-c", SLEEP, "stack/tied.py", "-m", "stack.tied", "supervisor.supervisord"),
        (str(tmp_path / "model_service_worker.py"),),  # read, or run by hand
    ]
    alive = [python(*command, STACK_VAR=str(tmp_path)) for command in commands]
    for process in alive:
        assert first_line(process) == "up"
    assert list(end_leftovers(tmp_path)) == []
    for process in alive:
        assert process.poll() is None
        with process:
            process.kill()


def test_a_start_below_a_tied_process_does_not_end_it(tmp_path: Path) -> None:
    (tmp_path / "starter.py").write_text(
        "import subprocess, sys\n"
        "code = 'import pathlib, sys; from stack.leftovers import end_leftovers;'\n"
        "code += 'print(list(end_leftovers(pathlib.Path(sys.argv[1]))), flush=True)'\n"
        "sys.exit(subprocess.run([sys.executable, '-c', code, sys.argv[1]]).returncode)\n"
    )
    above = python(
        "-m", "stack.tied", "starter", str(tmp_path),
        PYTHONPATH=str(tmp_path), STACK_VAR=str(tmp_path), STACK_PARENT=str(os.getpid()),
    )  # fmt: skip
    assert above.communicate()[0] == "[]\n"
    assert above.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such a call")
def test_a_tied_module_ends_with_whoever_started_it_and_keeps_its_arguments(tmp_path: Path) -> None:
    (tmp_path / "tied_module.py").write_text(
        "import os, sys, time\n"
        "print(os.getpid(), *sys.argv[1:], __name__, flush=True)\n"
        "time.sleep(60)\n"
    )
    start = (
        "import os, subprocess, sys\n"
        "os.environ['STACK_PARENT'] = str(os.getpid())\n"
        "subprocess.run([sys.executable, '-m', 'stack.tied', 'tied_module', '--flag'])\n"
    )
    with python("-c", start, PYTHONPATH=str(tmp_path)) as parent:
        pid, *arguments = first_line(parent).split()
        assert arguments == ["--flag", "__main__"]
        tied = psutil.Process(int(pid))
        parent.kill()
    deadline = time.monotonic() + 10
    while tied.is_running() and tied.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such a call")
def test_a_tied_module_does_not_start_when_whoever_wanted_it_is_gone_already(
    tmp_path: Path,
) -> None:
    (tmp_path / "tied_module.py").write_text("print('ran')")
    gone = python("-c", "")
    gone.communicate()
    orphan = python(
        "-m", "stack.tied", "tied_module", PYTHONPATH=str(tmp_path), STACK_PARENT=str(gone.pid)
    )
    assert orphan.communicate()[0] == ""
    assert orphan.returncode == -signal.SIGTERM


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such a call")
def test_what_a_tied_module_starts_is_tied_to_it(tmp_path: Path) -> None:
    (tmp_path / "outer.py").write_text(
        "import subprocess, sys\nsubprocess.run([sys.executable, '-m', 'stack.tied', 'inner'])\n"
    )
    (tmp_path / "inner.py").write_text("print('ran')")
    outer = python(
        "-m", "stack.tied", "outer", PYTHONPATH=str(tmp_path), STACK_PARENT=str(os.getpid())
    )
    assert outer.communicate()[0] == "ran\n"
