"""Faults of a whole stack, and the alerts that they fire: TorchServe's and the spool's."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.contract.contract_support import SPEC
from tests.running_stack import READY, RunningStack

if TYPE_CHECKING:
    from tests.alerts.conftest import Prometheus

JVM = "org.pytorch.serve.ModelServer"
NO_WORKER = SPEC["paths"]["/predictions/scorer"]["post"]["responses"]["503"]["content"][
    "application/json"
]["example"]


@pytest.fixture
def start_stack(tmp_path: Path) -> Iterator["Callable[..., RunningStack]"]:
    with ExitStack() as exits:

        def start(**environment: str) -> RunningStack:
            running = RunningStack(tmp_path / "var", environment)
            exits.callback(running.close)
            running.wait_for_line(READY, timeout_seconds=120)
            return running

        yield start


@pytest.fixture
def watch(
    start_prometheus: "Callable[..., Prometheus]",
) -> "Callable[[RunningStack], Prometheus]":
    def start(stack: RunningStack) -> "Prometheus":
        prometheus = start_prometheus(stack.url(8090, ""), stack.url(8082, ""))
        heartbeat = "medianserve_handler_heartbeat_timestamp_seconds"
        prometheus.wait_for("heartbeat", lambda: prometheus.query(heartbeat))
        assert set(prometheus.alerts()) <= {"MedianserveNoWorker"}  # until the first heartbeat
        prometheus.wait_until_resolved("MedianserveNoWorker")
        return prometheus

    return start


def predict(stack: RunningStack, user_id: str = "u", events: int = 1) -> Any:
    event = {"user_id": user_id, "timestamp": time.time(), "features": [1, 2, 3]}
    return stack.post([event] * events)["recorded"]


def test_a_spool_that_fills_because_the_database_is_gone_and_empties_when_it_is_back(
    start_stack: "Callable[..., RunningStack]", watch: "Callable[[RunningStack], Prometheus]"
) -> None:
    stack = start_stack()
    prometheus = watch(stack)
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


def test_a_spool_that_nobody_empties_in_time_and_one_whose_scores_are_refused(
    start_stack: "Callable[..., RunningStack]", watch: "Callable[[RunningStack], Prometheus]"
) -> None:
    """The state service hangs, and its limits are not the handler's."""
    stack = start_stack(
        HANDLER_SPOOL_MAX_BYTES=str(1 << 20),
        HANDLER_SPOOL_MAX_AGE_SECONDS="20",
        STATE_MAX_USER_ID_BYTES="8",
    )
    prometheus = watch(stack)
    state = psutil.Process(stack.pid_of("state_service"))
    state.suspend()
    for _ in range(23):  # of 38 kB each
        assert predict(stack, events=2_000) == "spooled"
    spooled_at = time.monotonic()
    prometheus.wait_until_fires("MedianserveSpoolNearlyFull")
    prometheus.wait_until_fires("MedianserveSpoolOld")
    time.sleep(max(0.0, spooled_at + 21 - time.monotonic()))
    assert predict(stack, "longer than eight bytes") == "spooled"
    state.resume()
    said = prometheus.wait_until_fires("MedianserveSpoolRefused")
    assert said["summary"].startswith("1 spooled batches")
    prometheus.wait_until_fires("MedianserveSpoolExpired")
    prometheus.wait_until_resolved("MedianserveSpoolNearlyFull")


def test_a_torchserve_without_a_worker_and_one_that_is_gone(
    start_stack: "Callable[..., RunningStack]", watch: "Callable[[RunningStack], Prometheus]"
) -> None:
    stack = start_stack()
    prometheus = watch(stack)
    management = stack.url(8081, "/models/scorer?min_worker=0&max_worker=0")
    assert stack.http.request("PUT", management).status == 202

    def refused() -> None:
        answer = stack.post_raw(b"[]")
        assert (answer.status, answer.json()) == (503, NO_WORKER)

    prometheus.wait_until_fires("MedianserveScoringErrors", refused)
    prometheus.wait_until_fires("MedianserveNoWorker")
    management = management.replace("worker=0", "worker=1")
    assert stack.http.request("PUT", management).status == 202
    prometheus.wait_until_resolved("MedianserveNoWorker")
    stack.kill(JVM)
    prometheus.wait_until_fires("MedianserveTorchServeDown")
    prometheus.wait_until_resolved("MedianserveTorchServeDown")
