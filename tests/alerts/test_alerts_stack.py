"""Faults of a whole stack, and the alerts that they fire: TorchServe's and the spool's."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.conftest import READY, RunningStack

if TYPE_CHECKING:
    from tests.alerts.conftest import Prometheus

JVM = "org.pytorch.serve.ModelServer"


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[RunningStack]:
    running = RunningStack(tmp_path / "var")
    try:
        running.wait_for_line(READY, timeout_seconds=120)
        yield running
    finally:
        running.close()


@pytest.fixture
def prometheus(stack: RunningStack, start_prometheus: "Callable[..., Prometheus]") -> "Prometheus":
    prometheus = start_prometheus(stack.url(8090, ""), stack.url(8082, ""))
    heartbeat = "medianserve_handler_heartbeat_timestamp_seconds"
    prometheus.wait_for("heartbeat", lambda: prometheus.query(heartbeat))
    assert set(prometheus.alerts()) <= {"MedianserveNoWorker"}  # until the first heartbeat
    prometheus.wait_until_resolved("MedianserveNoWorker")
    return prometheus


def predict(stack: RunningStack) -> Any:
    event = {"user_id": "u", "timestamp": time.time(), "features": [1, 2, 3]}
    return stack.post([event])["recorded"]


def test_a_spool_that_fills_because_the_database_is_gone_and_empties_when_it_is_back(
    stack: RunningStack, prometheus: "Prometheus"
) -> None:
    assert predict(stack) == "stored"
    database = stack.var / "state.db"
    database.rename(stack.var / "taken")
    recorded = set()
    prometheus.wait_until_fires("MedianserveSpoolGrowing", lambda: recorded.add(predict(stack)))
    assert recorded == {"spooled"}
    assert "MedianserveJournalFailing" in prometheus.alerts()
    (stack.var / "taken").rename(database)
    prometheus.wait_until_resolved("MedianserveSpoolGrowing")
    prometheus.wait_for("empty spool", lambda: stack.get("/stats")["spool"]["batches"] == 0)
    assert stack.stop() == 0


def test_a_torchserve_without_a_worker_and_one_that_is_gone(
    stack: RunningStack, prometheus: "Prometheus"
) -> None:
    management = stack.url(8081, "/models/scorer?min_worker=0&max_worker=0")
    assert stack.http.request("PUT", management).status == 202
    prometheus.wait_until_fires("MedianserveNoWorker")
    management = management.replace("worker=0", "worker=1")
    assert stack.http.request("PUT", management).status == 202
    prometheus.wait_until_resolved("MedianserveNoWorker")
    stack.kill(JVM)
    prometheus.wait_until_fires("MedianserveTorchServeDown")
    prometheus.wait_until_resolved("MedianserveTorchServeDown")
