"""Both /metrics of a running stack, and one request's way through both logs."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import urllib3
from prometheus_client.parser import text_string_to_metric_families

from tests.observe.observe_support import (
    alerts,
    dashboard_queries,
    metrics_in,
    metrics_named_in_documents,
    names_declared,
    names_shown,
)

if TYPE_CHECKING:
    from tests.running_stack import RunningStack

    Start = Callable[..., RunningStack]

READY = "medianserve is ready"
STATE = "state_service"
# What the processes print before, or past, their logs.
NO_MESSAGES = ("WARNING: sun.", "nvidia-smi ", "Model server started", "state service listening")
MADE_BY_PROMETHEUS = {"up", "ALERTS"}


def event(user_id: str) -> dict[str, Any]:
    return {"user_id": user_id, "timestamp": time.time(), "features": [1, 2, 3]}


def scrape(stack: "RunningStack", port: int) -> str:
    """Return the metrics of the state service (8090) or of TorchServe (8082)."""
    answer = stack.http.request("GET", stack.url(port, "/metrics"))
    assert answer.status == 200
    return answer.data.decode()


def value(stack: "RunningStack", gauge: str) -> float | None:
    """Return the one value of a gauge of TorchServe's; None when it has none yet."""
    found = [
        sample.value
        for family in text_string_to_metric_families(scrape(stack, 8082))
        for sample in family.samples
        if sample.name == gauge
    ]
    assert len(found) <= 1, (gauge, found)
    return found[0] if found else None


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.2)


def replay_metrics(url: str) -> str:
    """Return what a state service under the event clock shows once it has an event."""
    batch = {"key": "k", "user_id": ["u"], "timestamp": [1.5e9], "score": [1.0]}
    assert urllib3.request("POST", f"{url}/scores", json={"batches": [batch]}).status == 200
    return urllib3.request("GET", f"{url}/metrics").data.decode()


def test_every_metric_that_is_named_anywhere_exists_and_every_one_is_explained(
    stack: "RunningStack", start_state: Callable[..., str]
) -> None:
    stack.post([event("seen by metrics")])
    replay = replay_metrics(start_state("--clock", "event"))
    eventually(lambda: "medianserve_snapshot_timestamp_seconds" in scrape(stack, 8090))
    eventually(lambda: "medianserve_handler_spool_expired_events{" in scrape(stack, 8082))
    state, torchserve = scrape(stack, 8090), scrape(stack, 8082)
    shown = names_shown(state) | names_shown(replay) | names_shown(torchserve)
    exist = shown | MADE_BY_PROMETHEUS
    queries = [*dashboard_queries(), *(rule["expr"] for rule in alerts().values())]
    for query in queries:
        assert metrics_in(query) <= exist, query
    explained = metrics_named_in_documents()
    assert explained <= exist
    for text in (state, replay, torchserve):
        assert names_declared(text) <= explained
    assert "seen by metrics" not in state + torchserve


def test_the_handler_s_gauges_tell_what_waits_while_the_state_service_is_away(
    start_stack: "Start",
) -> None:
    stack = start_stack()
    stack.wait_for_line(READY)
    beat = "medianserve_handler_heartbeat_timestamp_seconds"
    eventually(lambda: value(stack, beat) is not None)
    first = value(stack, beat)
    eventually(lambda: value(stack, beat) != first)
    assert value(stack, "medianserve_handler_breaker_open") == 0
    state = stack.pid_of(STATE)
    os.kill(state, signal.SIGSTOP)
    try:
        assert stack.post([event("a")])["recorded"] == "spooled"
        eventually(lambda: value(stack, "medianserve_handler_spool_batches") == 1)
        assert value(stack, "medianserve_handler_breaker_open") == 1
    finally:
        os.kill(state, signal.SIGCONT)
    eventually(lambda: value(stack, "medianserve_handler_spool_batches") == 0)
    assert value(stack, "medianserve_handler_breaker_open") == 0


def test_torchserve_s_metrics_port_answers_nothing_but_metrics(stack: "RunningStack") -> None:
    for path in ("/models", "/models/scorer", "/ping", "/predictions/scorer", "/workflows"):
        for method in ("GET", "POST", "PUT", "DELETE"):
            assert stack.http.request(method, stack.url(8082, path)).status in (404, 405), path


def _messages(log: Path) -> list[dict[str, Any]]:
    lines = [line for line in log.read_text().splitlines() if not line.startswith(NO_MESSAGES)]
    return [json.loads(line) for line in lines]


def test_one_request_s_id_leads_through_both_logs_which_name_no_user(
    start_stack: "Start", tmp_path: Path
) -> None:
    stack = start_stack(HANDLER_LOG_LEVEL="debug", STATE_LOG_LEVEL="debug")
    stack.wait_for_line(READY)
    ids = {"X_Request_ID": 'r-17 "\\', "traceparent": "00-4bf92f3577b34da6-00f067aa-01"}
    stack.post([event("very-secret"), {"user_id": "very-secret"}], Idempotency_Key="k-1", **ids)
    stack.post([event("very-secret")])
    assert stack.stop() == 0
    named = {
        process: [
            message
            for message in _messages(tmp_path / "log" / f"{process}.log")
            if message.get("request_id") == ids["X_Request_ID"]
        ]
        for process in ("torchserve", "state-service")
    }
    (answered,), (recorded,) = named["torchserve"], named["state-service"]
    assert (answered["event"], answered["status"], answered["recorded"]) == (
        "answered",
        200,
        "stored",
    )
    assert recorded["event"] == "recorded"
    assert answered["traceparent"] == recorded["traceparent"] == ids["traceparent"]
    assert answered["key"] == recorded["key"]
    assert answered["processed"] == recorded["accepted"] == 1
    assert answered["skipped"] == recorded["skipped"] == 1
    assert "very-secret" not in "".join(
        path.read_text() for path in (tmp_path / "log").glob("*.log")
    )


def test_a_worker_that_does_not_start_is_told_as_json_in_the_log_and_as_text_at_the_end(
    start_stack: "Start", tmp_path: Path
) -> None:
    stack = start_stack(HANDLER_FEATURES="7")
    stack.wait_for_line("error: the model does not load")
    assert "error: the handler does not start" in stack.wait_for_line("error: the handler")
    assert stack.process.wait(timeout=60) == 1
    messages = _messages(tmp_path / "log" / "torchserve.log")
    assert any(message["event"].startswith("the handler does not start") for message in messages)
    assert all({"event", "level", "logger", "timestamp"} <= set(message) for message in messages)
