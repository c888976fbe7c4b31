"""What a killed start leaves behind is ended and removed by the next; what is in use is not."""

import os
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
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="t-"))  # short: it is where sockets are
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


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


@pytest.mark.parametrize("name", ["x" * 80, "a%b"])
def test_a_temporary_folder_that_sockets_cannot_be_in_is_not_used(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
    with scratch_folder("test") as (folder, _):
        assert folder.parent == Path("/tmp")  # noqa: S108 - where it always is


SLEEP = "import time; print('up', flush=True); time.sleep(60)"


@pytest.fixture
def left(tmp_path: Path) -> Iterator[list["subprocess.Popen[str]"]]:
    """Leave two processes of this folder, a stubborn one among them, and one of another folder."""
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    processes = [
        python("-c", stubborn + SLEEP, STACK_VAR=str(tmp_path)),
        python("-c", SLEEP, "supervisor.supervisord", STACK_VAR=str(tmp_path)),
        python("-c", SLEEP, STACK_VAR=f"{tmp_path}/offset-100"),
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
    stubborn, supervisor, other = left
    assert end_leftovers(tmp_path) == [
        f"supervisord (pid {supervisor.pid})",
        f"{psutil.Process(other.pid).name()} (pid {stubborn.pid})",
    ]
    assert not psutil.pid_exists(supervisor.pid)
    assert not psutil.pid_exists(stubborn.pid)
    assert other.poll() is None
    assert end_leftovers(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such a call")
def test_a_tied_module_ends_with_whoever_started_it_and_keeps_its_arguments(tmp_path: Path) -> None:
    (tmp_path / "tied_module.py").write_text(
        "import os, sys, time\n"
        "print(os.getpid(), *sys.argv[1:], __name__, flush=True)\n"
        "time.sleep(60)\n"
    )
    start = (
        "import subprocess, sys\n"
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
