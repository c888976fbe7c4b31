"""What the judging machine does with skipped tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE = """
import pytest

def test_that_runs(): ...

@pytest.mark.skip(reason="{}")
def test_that_does_not(): ...
"""


@pytest.mark.parametrize(
    ("reason", "options", "status"),
    [
        ("needs a GPU", ["--no-skips"], 0),
        ("there is no tool", ["--no-skips"], 1),
        ("there is no tool", ["--no-skips", "-n", "1"], 1),
        ("there is no tool", [], 0),
    ],
)
def test_a_skip_that_nobody_expects_is_a_failure_where_that_is_asked_for(
    tmp_path: Path, reason: str, options: list[str], status: int
) -> None:
    (tmp_path / "test_file.py").write_text(FILE.format(reason))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.skips", *options,
         "--rootdir", str(tmp_path), "-c", "/dev/null", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"},
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    assert ("was skipped: there is no tool" in done.stdout) == bool(status)
