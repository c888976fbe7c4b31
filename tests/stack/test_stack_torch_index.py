"""Where torch is taken from, by what the machine has and what can be reached."""

from pathlib import Path

import pytest

from stack import torch_index as module
from stack.torch_index import CPU_INDEX, torch_index


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Give a machine without a GPU, from which PyTorch's index can be reached."""
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "index.html").touch()
    monkeypatch.setattr(module, "_answers", lambda url: url == f"{CPU_INDEX}/torch/")
    return tmp_path


def with_driver(machine: Path, status: int) -> None:
    (machine / "nvidia-smi").write_text(f"#!/bin/sh\nexit {status}\n")
    (machine / "nvidia-smi").chmod(0o755)


def test_without_a_gpu_the_cpu_builds_are_taken(machine: Path) -> None:
    assert torch_index({}, "linux") == CPU_INDEX
    with_driver(machine, status=9)  # a driver without a device
    assert torch_index({}, "linux") == CPU_INDEX


def test_with_a_gpu_and_on_other_systems_pip_s_own_index_is_taken(machine: Path) -> None:
    assert torch_index({}, "darwin") == ""
    with_driver(machine, status=0)
    assert torch_index({}, "linux") == ""


def test_an_index_that_is_named_is_taken_whatever_the_machine_has(machine: Path) -> None:
    with_driver(machine, status=0)
    assert torch_index({"TORCH_INDEX_URL": " http://a/simple "}, "linux") == "http://a/simple"
    assert torch_index({"TORCH_INDEX_URL": ""}, "darwin") == ""


def test_what_cannot_be_reached_is_left_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CPU_INDEX", "http://127.0.0.1:9")
    monkeypatch.setenv("PATH", "")
    assert torch_index({}, "linux") == ""
