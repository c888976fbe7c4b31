"""What `make` says when it cannot set the project up."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bare_checkout(tmp_path: Path) -> Path:
    """Copy what make and pip look at; nothing is set up in it."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "README.md"):
        shutil.copy2(ROOT / name, tmp_path)
    return tmp_path


def make(checkout: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "MAKE", "MFLAGS"))  # of a make around the tests
    }
    return subprocess.run(
        ["make", *arguments],
        cwd=checkout,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 2
    return [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]


@pytest.mark.parametrize("python", ["", "/nonexistent/python", "/bin/false"])
def test_without_python_3_11_it_says_what_to_install(bare_checkout: Path, python: str) -> None:
    (sentence,) = errors(make(bare_checkout, "run", f"PYTHON={python}"))
    assert f"no Python 3.11 at '{python}'" in sentence


def test_a_failed_download_is_one_clear_sentence(bare_checkout: Path) -> None:
    done = make(
        bare_checkout,
        "run",
        f"PYTHON={sys.executable}",
        PIP_CONFIG_FILE=os.devnull,
        PIP_INDEX_URL="http://127.0.0.1:9/",
        PIP_RETRIES="0",
    )
    (sentence,) = errors(done)
    assert sentence.startswith("error: pip could not install the dependencies")
    assert "check the network" in sentence


def test_help_lists_every_target(bare_checkout: Path) -> None:
    listed = make(bare_checkout, "help").stdout
    for target in ("run", "demo", "test", "check", "model", "clean"):
        assert f"make {target} " in listed


def test_the_three_test_targets_leave_no_folder_of_tests_out() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        collected = tomllib.load(file)["tool"]["pytest"]["testpaths"]
    folders = {f"tests/{path.parent.name}" for path in (ROOT / "tests").glob("*/__init__.py")}
    assert {*collected, "tests/compose", "tests/alerts", "tests/dashboard"} == folders


def test_without_chromium_test_page_says_what_to_install(
    bare_checkout: Path, tmp_path: Path
) -> None:
    (bare_checkout / ".venv").symlink_to(ROOT / ".venv")
    (tmp_path / "bin").mkdir()
    for tool in ("make", "sh"):
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    done = make(
        bare_checkout, "test-page", "-o", ".venv/.dev-installed",
        PATH=str(tmp_path / "bin"), SHELL="/bin/sh",
    )  # fmt: skip
    (sentence,) = errors(done)
    assert sentence.startswith("error: there is no Chromium; ")


def test_without_docker_test_compose_says_what_is_missing(bare_checkout: Path) -> None:
    (bare_checkout / ".venv").symlink_to(ROOT / ".venv")
    done = subprocess.run(
        ["make", "test-compose", "-o", ".venv/.dev-installed"],
        cwd=bare_checkout,
        env={**os.environ, "DOCKER_HOST": "unix:///nonexistent"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.startswith("error: no Docker engine answers; ")


def test_without_prometheus_test_observe_says_what_is_missing(bare_checkout: Path) -> None:
    (bare_checkout / ".venv").symlink_to(ROOT / ".venv")
    tools = bare_checkout / "tools"
    tools.mkdir()
    for tool in ("make", "sh"):
        path = shutil.which(tool)
        assert path is not None
        (tools / tool).symlink_to(path)
    done = subprocess.run(
        ["make", "test-observe", "-o", ".venv/.dev-installed", "-o", "model"],
        cwd=bare_checkout, env={"PATH": str(tools)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.startswith("error: no prometheus here; ")
