"""A wheel holds all that both programs need: they run in a folder that is no clone."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from urllib.parse import urljoin

import pytest

from tests.running_stack import READY, ROOT, RunningStack


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """Build it from a copy: building leaves files behind."""
    built = shutil.ignore_patterns(
        ".venv", ".git", "var", "build", "*.egg-info", ".*_cache", "__pycache__", "tests"
    )
    copy = shutil.copytree(ROOT, tmp_path / "source", ignore=built, symlinks=True)
    pip(
        sys.executable, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(copy)
    )
    shutil.rmtree(copy)
    (found,) = tmp_path.glob("medianserve-*.whl")
    return found


def pip(python: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def python(tmp_path: Path, wheel: Path) -> str:
    """Install it into an environment that has what it depends on, and nothing of ours."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    ours = sysconfig.get_path("purelib")
    theirs = sysconfig.get_path("purelib", vars={"base": str(environment)})
    Path(theirs, "dependencies.pth").write_text(ours)
    python = str(environment / "bin" / "python")
    pip(python, "install", "--no-deps", "--no-index", "--ignore-installed", str(wheel))
    return python


@pytest.mark.timeout(240)
def test_both_programs_run_from_a_wheel(tmp_path: Path, python: str) -> None:
    folder = tmp_path / "anywhere"
    folder.mkdir()
    for program in ("handler.create_model", "handler.archive"):
        subprocess.run([python, "-m", program], cwd=folder, check=True)
    stack = RunningStack(folder / "var", folder=folder, python=[python])
    try:
        stack.wait_for_line(READY)
        event = {"user_id": "a", "timestamp": time.time(), "features": [1, 2, 3]}
        assert stack.post([event])["recorded"] == "stored"
        assert stack.get("/users/a/median")["count"] == 1
        assert stack.get("/openapi.json")["openapi"]
        for page in ("/", "/docs"):
            html = stack.http.request("GET", stack.url(8090, page)).data.decode()
            files = re.findall(r'(?:src|href)="([^"#:]+)"', html)
            assert files
            for file in files:
                address = urljoin(stack.url(8090, page), file)
                assert stack.http.request("GET", address).status == 200, address
        where = subprocess.run(
            [python, "-c", "import handler, stack; print(handler.__file__, stack.__file__)"],
            cwd=folder, capture_output=True, text=True, check=True, env=os.environ,
        ).stdout.split()  # fmt: skip
        assert all(path.startswith(str(tmp_path / "environment")) for path in where)
        assert stack.stop() == 0
    finally:
        stack.close()
    assert {path.name for path in folder.iterdir()} == {"model_store", "var"}
