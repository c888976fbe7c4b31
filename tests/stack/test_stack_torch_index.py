"""Where torch is taken from, by what the machine has and what can be reached, and why."""

import functools
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack import torch_index as module
from stack.torch_index import torch_index

ROOT = Path(__file__).parents[2]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Files, and no words about it."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """Serve what PyTorch's index of CPU builds does, as far as the choice looks."""
    (tmp_path / "index" / "torch").mkdir(parents=True)
    handler = functools.partial(Quiet, directory=str(tmp_path / "index"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, index: str) -> Path:
    """Give a machine without a GPU, from which PyTorch's index can be reached."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "CPU_INDEX", index)
    return tmp_path


def with_driver(machine: Path, status: int) -> None:
    (machine / "nvidia-smi").write_text(f"#!/bin/sh\nexit {status}\n")
    (machine / "nvidia-smi").chmod(0o755)


def test_without_a_gpu_the_cpu_builds_are_taken(machine: Path, index: str) -> None:
    assert torch_index({}, "linux").url == index
    with_driver(machine, status=9)  # a driver without a device
    url, reason = torch_index({}, "linux")
    assert url == index
    assert reason.startswith("no GPU is seen here (to use one: TORCH_INDEX_URL=")


def test_with_a_gpu_and_on_other_systems_pip_s_own_index_is_taken(machine: Path) -> None:
    assert torch_index({}, "darwin") == ("", "only for Linux does it bring CUDA")
    with_driver(machine, status=0)
    assert torch_index({}, "linux") == ("", "there is a GPU")
    assert str(torch_index({}, "linux")) == (
        "installing torch from pip's own index: there is a GPU"
    )


def test_an_index_that_is_named_is_taken_whatever_the_machine_has(machine: Path) -> None:
    with_driver(machine, status=0)
    given = torch_index({"TORCH_INDEX_URL": " http://a/simple "}, "linux")
    assert given == ("http://a/simple", "TORCH_INDEX_URL names it")
    assert torch_index({"TORCH_INDEX_URL": ""}, "darwin").url == ""


@pytest.mark.parametrize("there", ["nobody", "another"])
def test_what_does_not_answer_as_an_index_is_left_and_said(
    machine: Path, index: str, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    out_of_reach = "http://127.0.0.1:9" if there == "nobody" else f"{index}/no-index"
    monkeypatch.setattr(module, "CPU_INDEX", out_of_reach)
    assert torch_index({}, "linux") == ("", f"{out_of_reach} does not answer")


def test_only_the_index_is_on_standard_output() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stack.torch_index"],
        cwd=ROOT, env={"TORCH_INDEX_URL": "http://a/simple"}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout == "http://a/simple\n"
    assert done.stderr == "installing torch from http://a/simple: TORCH_INDEX_URL names it\n"
