"""A clone in a folder whose name holds what trips tools, and an environment that is no help."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running_stack import ROOT, RunningStack

# A space, quotes, what shells, make, supervisord, SQLite's and log4j's addresses expand, letters
# beyond ASCII; as long as a folder's name may be, and therefore too long for a socket or a script.
NASTY = "my 'new' \"projects\" 100% %(here)s $HOME ${x} #1; a=b?c&d,e äöü " + "long " * 30


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """Put a clone there, reached by a symbolic link."""
    folder = tmp_path / NASTY.strip() / "medianserve"
    built = shutil.ignore_patterns(
        ".venv", ".git", "var", ".*_cache", "__pycache__", "*.mar", "*.pt"
    )
    shutil.copytree(ROOT, folder, ignore=built)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    (tmp_path / "a link").symlink_to(folder)
    yield tmp_path / "a link"
    shutil.rmtree(folder)


def as_ordinary_user() -> list[str]:
    """Drop what root may do and others may not, where that is who we are."""
    return [] if os.getuid() else ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


PYTHON = ".venv/bin/python"
HOSTILE = {
    "LC_ALL": "C",
    "HOME": "/nonexistent",
    "http_proxy": "http://127.0.0.1:9",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "PYTHONDONTWRITEBYTECODE": "1",
}


def run(clone: Path, *command: str) -> str:
    done = subprocess.run(
        [*as_ordinary_user(), *command], cwd=clone, env={**os.environ, **HOSTILE},
        capture_output=True, text=True, check=False, umask=0o077,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(240)
def test_a_clone_works_in_any_folder_for_an_ordinary_user_with_no_help_from_the_environment(
    clone: Path,
) -> None:
    settled = ("-o", ".venv/.torch-installed", "-o", ".venv/.runtime-installed")
    assert "wrote model_store/scorer.mar" in run(clone, "make", "model", *settled)
    stack = RunningStack(clone / "var", HOSTILE, folder=clone, python=[*as_ordinary_user(), PYTHON])
    try:
        stack.wait_for_line("medianserve is ready")
        event = {"user_id": "a", "timestamp": time.time(), "features": [1, 2, 3]}
        assert stack.post([event])["recorded"] == "stored"
        at = ("--port-offset", str(stack.offset))
        assert run(clone, PYTHON, "-m", "stack.workers", *at) == "1 workers ready\n"
        run(clone, PYTHON, "-m", "stack.probe", *at)
        assert json.loads(run(clone, PYTHON, "-m", "state_service", "dump", "var/state.db"))
        run(clone, PYTHON, "-m", "state_service", "backup", "var/state.db", "copy.db")
        load = ("--rate", "200", "--duration", "2", "--verify")
        urls = ("--url", stack.url(8080, ""), "--state-url", stack.url(8090, ""))
        run(clone, PYTHON, "-m", "generator", "run", *urls, *load)
        assert stack.stop() == 0
    finally:
        stack.close()
    run(clone, PYTHON, "-m", "state_service", "check", "copy.db")
    assert "error" not in (clone / "var/log/supervisord.log").read_text().lower()
