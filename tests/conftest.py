"""Real processes on free ports, shared by the tests that need them."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import urllib3

from tests.running_stack import READY, ROOT, RunningStack
from tests.skips import pytest_addoption, pytest_sessionfinish

__all__ = ["pytest_addoption", "pytest_sessionfinish"]  # hooks


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run all tests of the shared stack in one process, so that there is one."""
    for item in items:
        if "stack" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("the shared stack"))


@pytest.fixture
def start_state(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Start real state services of this test's own; give their addresses."""
    environment = {name: value for name, value in os.environ.items() if "STATE_" not in name}
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> str:
        database = str(tmp_path / f"state-{len(processes)}.db")
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "state_service",
                "--port",
                "0",
                "--database",
                database,
                *arguments,
            ],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found, "the state service did not start"
        while urllib3.request("GET", f"{found.group()}/readyz").status != 200:
            time.sleep(0.02)
        return found.group()

    yield start
    for process in processes:
        with process:
            process.terminate()


@pytest.fixture
def state_url(start_state: Callable[..., str]) -> str:
    """Start a real state service with its default settings."""
    return start_state()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """Start the stack that tests share: they use users of their own."""
    running = RunningStack(tmp_path_factory.mktemp("stack"))
    try:
        running.wait_for_line(READY)
        yield running
    finally:
        running.close()


@pytest.fixture
def start_stack(tmp_path: Path) -> Iterator[Callable[..., RunningStack]]:
    """Start stacks of the test's own, in one folder unless told otherwise."""
    started: list[RunningStack] = []

    def start(var: Path = tmp_path, **environment: str) -> RunningStack:
        started.append(RunningStack(var, environment))
        return started[-1]

    yield start
    for running in started:
        running.close()
