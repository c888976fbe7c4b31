"""Whole runs: the real stack broken for real, and a run that must not come out well."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

# Half a minute each; five where much else runs.
pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("chaos"), pytest.mark.timeout(300)]


def chaos(tmp_path: Path, *words: str) -> tuple[int, str, Any]:
    """Run the command line; return its status, its output and its numbers."""
    file = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", "chaos", *words, "--json", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    assert file.exists(), output
    return done.returncode, output, json.loads(file.read_text())


def test_faults_of_each_sort_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    kinds = ["kill-state", "kill-worker", "reset-answer", "file-limit", "stop-state"]
    only = [word for kind in kinds for word in ("--only", kind)]
    status, output, report = chaos(
        tmp_path, "--seed", "4", "--rounds", "4", "--seconds-between", "0.5", *only
    )
    assert status == 0, output
    assert report["right"]
    assert set(report["faults"]) == set(kinds)
    assert report["not_injected"] == []
    assert report["load"]["retries"] > 0, "nothing was felt: the run shows nothing"
    verdict = report["verdict"]
    assert verdict["events"] == report["load"]["requests"] * report["events_per_request"] > 0
    assert verdict["lost"] == verdict["doubled"] == verdict["wrong"] == 0
    assert verdict["users"] == 200


def test_a_stack_that_may_lose_events_is_found_to_lose_them(tmp_path: Path) -> None:
    """Without a journal, and long before the first snapshot, a kill loses what was acknowledged."""
    status, output, report = chaos(
        tmp_path,
        *("--seed", "1", "--rounds", "1", "--seconds-between", "2", "--only", "kill-state"),
        *("--patience", "20"),  # what is lost does not come back
        *("--setting", "STATE_DURABILITY=snapshot"),
        *("--setting", "STATE_SNAPSHOT_INTERVAL_SECONDS=3600"),
    )
    assert status == 1, output
    assert not report["right"]
    assert report["verdict"]["lost"] > 0
    assert report["verdict"]["users_wrong"] > 0
    assert "error: lost" in output


def test_a_misspelt_setting_is_refused_before_anything_starts() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "--setting", "WINDOW_SECONDS=3"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "WINDOW_SECONDS=3 is not NAME=VALUE" in done.stderr.replace("\n", " ")


def test_a_schedule_can_be_read_without_breaking_anything() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "--schedule", "--seed", "9", "--rounds", "3"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert [str(number) for number in (1, 2, 3)] == [
        line.split()[0] for line in done.stdout.splitlines()
    ]
