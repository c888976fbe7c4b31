"""Two TorchServes beside each other: ours, and a plain one."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import urllib3
import yaml

from handler.archive import build_archive
from handler.create_model import main as create_model
from handler.packing import DEFAULT_CONFIG
from tests.compatibility.servers import PlainTorchServe, Server
from tests.running_stack import READY, RunningStack


@dataclass(frozen=True)
class Pair:
    plain: Server
    ours: Server
    state_url: str  # of ours

    def processed(self) -> int:
        """Return how many events our state service has processed."""
        processed: int = urllib3.request("GET", f"{self.state_url}/stats").json()[
            "events_processed"
        ]
        return processed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all of this folder as slow; one process has the pair of which all is open."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
        if "opened" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("the opened pair"))


@pytest.fixture(scope="session")
def pair(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both with their defaults."""
    plain = PlainTorchServe(tmp_path_factory.mktemp("plain"))
    try:
        plain.wait()
        yield Pair(plain.server, Server.of(stack), stack.url(8090, ""))
    finally:
        plain.close()


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both with the model API, token authorization and metrics for Prometheus, and two versions.

    The plain one's store has our archive besides, which records at our state service.
    """
    folder = tmp_path_factory.mktemp("opened")
    plain = PlainTorchServe(
        tmp_path_factory.mktemp("plain"), enable_model_api="true", metrics_mode="prometheus"
    )
    open_too = {"TS_ENABLE_MODEL_API": "true", "TS_DISABLE_TOKEN_AUTHORIZATION": "false"}
    stack = RunningStack(folder / "var", open_too)
    weights = folder / "inefficient_model.pt"
    create_model(["--output", str(weights)])
    try:
        plain.wait()
        stack.wait_for_line(READY)
        build_archive(stack.var / "model_store" / "scorer-2.mar", weights, version="2.0")
        config = yaml.safe_load(DEFAULT_CONFIG.read_text())
        config["handler"]["state_url"] = stack.url(8090, "")
        (folder / "ours.yaml").write_text(yaml.safe_dump(config))
        build_archive(plain.store / "ours.mar", weights, config=folder / "ours.yaml")
        yield Pair(plain.server, Server.of(stack), stack.url(8090, ""))
    finally:
        stack.close()
        plain.close()
