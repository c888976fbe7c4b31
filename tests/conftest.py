"""Real processes on free ports, shared by the tests that need them."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

ROOT = Path(__file__).parents[1]


@pytest.fixture
def state_url(tmp_path: Path) -> Iterator[str]:
    """Start a real state service of this test's own."""
    environment = {name: value for name, value in os.environ.items() if "STATE_" not in name}
    process = subprocess.Popen(
        [
            sys.executable, "-m", "state_service",
            "--port", "0",
            "--database", str(tmp_path / "state.db"),
        ],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    with process:
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found, "the state service did not start"
        while urllib3.request("GET", f"{found.group()}/readyz").status != 200:
            time.sleep(0.02)
        yield found.group()
        process.terminate()
