"""What a start does before it starts anything: it checks, tells, and loses nothing."""

import os
import shlex
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from chaos.target import free_ports
from handler.default_model import default_store
from handler.packing import has_current_code
from stack.__main__ import note_on_handler
from stack.addresses import Addresses, StackError
from stack.files import SERVER_CONFIG
from stack.supervision import Stack

ROOT = Path(__file__).parents[2]
STUBBORN = "import time; print('up', flush=True); time.sleep(60)"


@pytest.fixture
def busy() -> Iterator[Addresses]:
    """Return addresses of which one is taken, so that no start gets further."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        variables = {"TS_INFERENCE_ADDRESS": f"http://127.0.0.1:{taken.getsockname()[1]}"}
        yield Addresses.load(SERVER_CONFIG, variables, 0)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a model store with an archive, the one that is named."""
    folder = tmp_path / "a store"
    folder.mkdir()
    with zipfile.ZipFile(folder / "scorer.mar", "w") as archive:
        archive.writestr("mine", "")
    monkeypatch.setenv("TS_MODEL_STORE", str(folder))
    return folder


@pytest.fixture
def leftover(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    (tmp_path / "left.py").write_text(STUBBORN)
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "STACK_VAR": str(tmp_path / "var"),
        "STACK_PARENT": str(os.getpid()),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "stack.tied", "left"],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
        process.kill()


def start(addresses: Addresses, var: Path, told: list[str]) -> str:
    """Return why the start fails."""
    with pytest.raises(StackError) as refused, Stack(addresses, var, told.append):
        pass
    return str(refused.value)


@pytest.mark.usefixtures("store")
def test_what_was_ended_is_told_also_when_the_start_fails_afterwards(
    busy: Addresses, tmp_path: Path, leftover: "subprocess.Popen[str]"
) -> None:
    told: list[str] = []
    assert "port" in start(busy, tmp_path / "var", told)
    assert told == [
        f"an earlier start was killed and had left left (pid {leftover.pid}) running: ended"
    ]
    assert not psutil.pid_exists(leftover.pid)


def test_a_start_that_has_no_model_ends_nothing(
    busy: Addresses, tmp_path: Path, store: Path, leftover: "subprocess.Popen[str]"
) -> None:
    (store / "scorer.mar").write_bytes(b"no archive")
    told: list[str] = []
    assert "is missing or damaged" in start(busy, tmp_path / "var", told)
    assert told == []
    assert leftover.poll() is None


@pytest.mark.parametrize("below", ["", "mine"])
def test_the_folder_of_the_stack_s_own_copy_cannot_be_the_user_s(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    theirs = tmp_path / "var" / "model_store" / below
    theirs.mkdir(parents=True)
    shutil.copy2(store / "scorer.mar", theirs)
    (tmp_path / "link").symlink_to(theirs)
    for name in (theirs, tmp_path / "link"):
        monkeypatch.setenv("TS_MODEL_STORE", str(name))
        refused = start(free_ports().addresses, tmp_path / "var", [])
        assert refused.startswith(f"TS_MODEL_STORE is {name}, where a stack keeps its copy")
        assert (theirs / "scorer.mar").is_file()


def test_a_copy_that_cannot_be_made_keeps_the_one_before_and_is_one_sentence(
    tmp_path: Path, store: Path
) -> None:
    before = tmp_path / "var" / "model_store" / "scorer.mar"
    before.parent.mkdir(parents=True)
    before.write_text("before")
    (tmp_path / "var" / "model_store.new").touch()  # as good as a disk without room
    refused = start(free_ports().addresses, tmp_path / "var", [])
    assert refused.startswith(f"cannot copy {store}/scorer.mar to {before.parent}: ")
    assert before.read_text() == "before"


def test_a_handler_of_another_version_is_packed_anew_by_the_command_in_the_note(
    store: Path,
) -> None:
    archive = store / "scorer.mar"
    with (
        zipfile.ZipFile(default_store() / "scorer.mar") as current,
        zipfile.ZipFile(archive, "w") as old,
    ):
        for name in current.namelist():
            old.writestr(name, current.read(name) + b"\n" * name.endswith("answering.py"))
    note = note_on_handler(archive)
    command = shlex.split(note.partition("start again: ")[2])
    assert command[0] == "python"
    subprocess.run([sys.executable, *command[1:]], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    assert has_current_code(archive)
    assert note_on_handler(archive) == ""
