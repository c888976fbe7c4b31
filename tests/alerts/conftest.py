"""A real Prometheus that scrapes real services often, with rules that do not wait for minutes."""

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml

from tests.alerts.alerts_support import FaultyState
from tests.observe.observe_support import PROMETHEUS, RULES_PATH
from tests.running_stack import ROOT

_SCRAPE = "500ms"
_ANSWER_SECONDS = 60.0

# What makes rules quick enough for a test; their thresholds stay, but for those in seconds.
_QUICKER = (
    (r"for: \w+", "for: 1s"),
    (r"\[(2m|5m|1h)\]", "[20s]"),
    (r"> on \(job, instance\) 60 \+ 10 \*", "> on (job, instance) 2 + 2 *"),
    (r"wal_held_seconds > 60", "wal_held_seconds > 2"),
    (r"heartbeat_timestamp_seconds > 30", "heartbeat_timestamp_seconds > 12"),
)


class Prometheus:
    """One server, and what it says."""

    def __init__(self, folder: Path, state: str, torchserve: str | None) -> None:
        self._folder = folder
        (folder / "rules").mkdir(parents=True)
        rules = RULES_PATH.read_text()
        for pattern, quicker in _QUICKER:
            rules, count = re.subn(pattern, quicker, rules)
            assert count, pattern
        (folder / "rules" / RULES_PATH.name).write_text(rules)
        configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
        configuration["global"] = {"scrape_interval": _SCRAPE, "evaluation_interval": _SCRAPE}
        jobs = configuration["scrape_configs"]
        for job, url in zip(jobs, (state, torchserve), strict=True):
            job["static_configs"] = [{"targets": [url.removeprefix("http://")]}] if url else []
        (folder / "prometheus.yml").write_text(json.dumps(configuration))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        self._log = (folder / "log").open("w")
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + _ANSWER_SECONDS
        while not self._is_ready():
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.2)

    def _is_ready(self) -> bool:
        try:
            answer = urllib3.request("GET", f"{self._url}/-/ready", retries=False)
        except urllib3.exceptions.HTTPError:
            return False
        return answer.status == 200

    def ask(self, path: str, **fields: str) -> Any:
        """Return the data of an answer of Prometheus' API."""
        answer = urllib3.request("GET", f"{self._url}/api/v1{path}", fields=fields)
        assert answer.status == 200, answer.data
        return answer.json()["data"]

    def query(self, expression: str) -> list[Any]:
        found: list[Any] = self.ask("/query", query=expression)["result"]
        return found

    def alerts(self) -> dict[str, Any]:
        """Return the alerts that fire."""
        return {
            alert["labels"]["alertname"]: alert
            for alert in self.ask("/alerts")["alerts"]
            if alert["state"] == "firing"
        }

    def wait_for(self, what: str, condition: Callable[[], Any]) -> Any:
        """Return what the condition gives, once it gives something."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        while not (found := condition()):
            assert time.monotonic() < deadline, f"no {what}; firing: {set(self.alerts())}"
            time.sleep(0.2)
        return found

    def wait_until_fires(self, name: str, meanwhile: Callable[[], object] = lambda: None) -> Any:
        """Wait for an alert, doing something at every look; return its annotations."""

        def look() -> Any:
            meanwhile()
            return self.alerts().get(name)

        annotations = self.wait_for(name, look)["annotations"]
        assert "<error" not in str(annotations), "a template that cannot be filled in"
        assert "<no value>" not in str(annotations)
        return annotations

    def wait_until_resolved(self, name: str) -> None:
        self.wait_for(f"end of {name}", lambda: name not in self.alerts())

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        self._log.close()


@pytest.fixture
def start_prometheus(tmp_path: Path) -> Iterator[Callable[..., Prometheus]]:
    started: list[Prometheus] = []

    def start(state: str, torchserve: str | None = None) -> Prometheus:
        started.append(Prometheus(tmp_path / "prometheus", state, torchserve))
        started[-1].wait_until_ready()
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def start_state_service(tmp_path: Path) -> Iterator[Callable[..., FaultyState]]:
    with ExitStack() as exits:

        def start(*arguments: str) -> FaultyState:
            state = FaultyState(tmp_path / "state.db", arguments)
            exits.callback(state.kill)
            state.start()
            return state

        yield start


@pytest.fixture(scope="session")
def promtool() -> Callable[..., str]:
    """Run promtool in the repository's root; return what it printed."""
    assert shutil.which("promtool")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            ["promtool", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
