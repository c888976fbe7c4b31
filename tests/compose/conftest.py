"""The compose stack, built and run by a real Docker: one for all tests of this folder."""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tests.readme import ROOT

SERVICES = ("state-service", "torchserve")
_READY_SECONDS = 90.0


class ComposeStack:
    """One project of its own, from a copy of the working tree, on free ports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = f"medianserve-test-{secrets.token_hex(3)}"
        self.scorer_port, self.state_port, self.prometheus_port = _free_ports()
        self.http = urllib3.PoolManager(timeout=urllib3.Timeout(total=30), retries=False)
        (folder / ".env").write_text(
            f"COMPOSE_PROJECT_NAME={self.project}\nMEDIANSERVE_VERSION=test\n"
            f"PUBLISH_SCORER_PORT={self.scorer_port}\nPUBLISH_STATE_PORT={self.state_port}\n"
            f"PUBLISH_PROMETHEUS_PORT={self.prometheus_port}\n"
            f"LIMIT_TORCHSERVE_CPUS={min(2, os.cpu_count() or 1)}\nLOAD_SECONDS=5\n"
        )

    # --- docker -------------------------------------------------------------------------------

    def docker(self, *arguments: str, timeout_seconds: float = 300) -> str:
        """Run a docker command in the project's folder; return what it printed."""
        done = subprocess.run(
            ["docker", *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_seconds,
        )
        assert done.returncode == 0, f"docker {arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def compose(self, *arguments: str) -> str:
        return self.docker("compose", *arguments)

    def up(self) -> None:
        self.compose("up", "--detach", "--wait", "--wait-timeout", "120")

    def start_afresh(self) -> None:
        """Forget everything."""
        self.compose("down", "--volumes")
        self.up()

    def container(self, service: str) -> str:
        return f"{self.project}-{service}-1"

    def inspect(self, service: str) -> Any:
        return json.loads(self.docker("inspect", self.container(service)))[0]

    def wait_until(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"not {what}: {self.compose('logs')}"
            time.sleep(0.2)

    def wait_until_healthy(self, service: str) -> None:
        self.wait_until(
            f"{service} healthy",
            lambda: self.inspect(service)["State"].get("Health", {}).get("Status") == "healthy",
        )

    def run_python(self, service: str, code: str) -> str:
        """Run Python inside a service's container."""
        return self.compose("exec", "-T", service, "python", "-c", code)

    # --- the product --------------------------------------------------------------------------

    def predict(self, document: Any, **headers: str) -> urllib3.BaseHTTPResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.request(
            "POST",
            f"http://127.0.0.1:{self.scorer_port}/predictions/scorer",
            body=json.dumps(document).encode(),
            headers={"Content-Type": "application/json", **named},
        )

    def offer_scores(self, document: Any) -> None:
        """Hand scores to the state service, which may end meanwhile."""
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            self.http.request("POST", f"http://127.0.0.1:{self.state_port}/scores", json=document)

    def prometheus(self, path: str) -> Any:
        """Ask the API of the profile's Prometheus; return the data of its answer."""
        url = f"http://127.0.0.1:{self.prometheus_port}/api/v1{path}"
        try:
            answer = self.http.request("GET", url)
        except urllib3.exceptions.HTTPError:
            return None  # it is not there yet
        return answer.json()["data"] if answer.status == 200 else None

    def state(self, path: str) -> Any:
        answer = self.http.request("GET", f"http://127.0.0.1:{self.state_port}{path}")
        assert answer.status == 200, answer.data
        return answer.json()


def event(user_id: str, x: float = 1.0) -> dict[str, Any]:
    return {"user_id": user_id, "timestamp": time.time(), "features": [x, 2.0, 3.0]}


def _free_ports() -> tuple[int, int, int]:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
        socket.create_server(("127.0.0.1", 0)) as three,
    ):
        return one.getsockname()[1], two.getsockname()[1], three.getsockname()[1]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeStack]:
    """Build the images, start the stack; at the end nothing of it may be left."""
    folder = tmp_path_factory.mktemp("compose") / "checkout"
    ignored = shutil.ignore_patterns(".venv", ".git", "var", ".*_cache", "__pycache__", ".env")
    shutil.copytree(ROOT, folder, ignore=ignored)
    stack = ComposeStack(folder)
    try:
        stack.compose("--profile", "load", "build", "--quiet")
        stack.up()
        yield stack
    finally:
        profiles = ("--profile", "load", "--profile", "observe")
        stack.compose(*profiles, "down", "--volumes", "--timeout", "30")
        label = f"label=com.docker.compose.project={stack.project}"
        for kind in ("container", "network", "volume"):
            everything = ["--all"] if kind == "container" else []
            left = stack.docker(kind, "ls", "--quiet", "--filter", label, *everything)
            assert not left, f"{kind} left behind: {left}"
