"""The stack's life in containers: load, scaling, kills, cuts, full memory, stops and starts."""

import json
import time
from typing import TYPE_CHECKING

import pytest

from tests.compose.compose_load import Load
from tests.compose.conftest import SERVICES, event

if TYPE_CHECKING:
    from tests.compose.conftest import ComposeStack


def count_of(stack: "ComposeStack", user_id: str) -> int:
    count: int = stack.state(f"/users/{user_id}/median")["count"]
    return count


def test_the_generator_finds_every_median_exact(stack: "ComposeStack") -> None:
    report = stack.compose("run", "--rm", "generator")
    assert "users have exactly the expected median and count" in report
    assert "0 failed" in report


def test_workers_are_scaled_while_requests_go_on(stack: "ComposeStack") -> None:
    with Load(stack, "scaled") as load:
        for workers in (1, 2):
            shown = stack.compose(
                "exec", "-T", "torchserve", "python", "-m", "stack.workers", str(workers)
            )
            assert shown == f"{workers} workers ready\n"
            load.wait_for(20)
    assert count_of(stack, "scaled") == load.acknowledged


def test_what_a_paused_state_service_could_not_take_is_counted_once(stack: "ComposeStack") -> None:
    document = event("paused")
    stack.compose("pause", "state-service")
    try:
        answer = stack.predict(document, Idempotency_Key="paused-1")
    finally:
        stack.compose("unpause", "state-service")
    assert (answer.status, answer.json()["recorded"]) == (200, "spooled")
    assert stack.predict(document, Idempotency_Key="paused-1").status == 200
    stack.wait_until("replayed", lambda: count_of(stack, "paused") == 1)
    stack.wait_until_healthy("state-service")  # Docker calls a paused container unhealthy


def test_what_a_cut_network_keeps_away_is_counted_once_it_is_mended(stack: "ComposeStack") -> None:
    network, container = f"{stack.project}_default", stack.container("state-service")
    stack.docker("network", "disconnect", network, container)
    try:
        answer = stack.predict(event("cut"), Idempotency_Key="cut-1")
    finally:
        stack.docker("network", "connect", "--alias", "state-service", network, container)
    assert (answer.status, answer.json()["recorded"]) == (200, "spooled")
    stack.wait_until("replayed", lambda: count_of(stack, "cut") == 1)
    assert stack.predict(event("cut"), Idempotency_Key="cut-1").json()["recorded"] == "stored"
    assert count_of(stack, "cut") == 1


def test_a_killed_torchserve_loses_nothing_acknowledged(stack: "ComposeStack") -> None:
    with Load(stack, "killed-torchserve") as load:
        load.wait_for(50)
        stack.docker("kill", "--signal", "KILL", stack.container("torchserve"))
        stack.up()
        load.wait_for(20)
    assert load.failures > 0
    assert count_of(stack, "killed-torchserve") == load.acknowledged


def test_a_killed_state_service_loses_nothing_acknowledged(stack: "ComposeStack") -> None:
    with Load(stack, "killed-state") as load:
        load.wait_for(200)
        stack.docker("kill", "--signal", "KILL", stack.container("state-service"))
        stack.up()
        load.wait_for(20)
    assert load.failures == 0  # what came meanwhile was spooled
    stack.wait_until("replayed", lambda: count_of(stack, "killed-state") == load.acknowledged)


@pytest.mark.parametrize("service", SERVICES)
def test_a_server_that_ends_ends_its_container_and_is_started_again(
    stack: "ComposeStack", service: str
) -> None:
    before = stack.inspect(service)["RestartCount"]
    stack.run_python(service, "import os, signal; os.kill(1, signal.SIGTERM)")
    stack.wait_until("restarted", lambda: stack.inspect(service)["RestartCount"] == before + 1)
    stack.wait_until_healthy(service)
    assert stack.predict(event(f"back-{service}")).status == 200


def test_a_state_service_out_of_memory_is_killed_and_comes_back_with_its_events(
    stack: "ComposeStack",
) -> None:
    assert stack.predict(event("survivor")).status == 200
    container, before = stack.container("state-service"), stack.inspect("state-service")
    small, own = str(128 * 2**20), str(before["HostConfig"]["Memory"])
    stack.docker("update", "--memory", small, "--memory-swap", small, container)

    def killed() -> bool:
        flood(stack)
        return bool(stack.inspect("state-service")["RestartCount"] > before["RestartCount"])

    try:
        stack.wait_until("killed for its memory", killed)
    finally:
        stack.docker("update", "--memory", own, "--memory-swap", own, container)
    stack.wait_until_healthy("state-service")
    assert count_of(stack, "survivor") == 1
    stack.wait_until("scoring again", lambda: stack.predict(event("survivor")).status == 200)


def flood(stack: "ComposeStack") -> None:
    """Hand in a few MB of new users; the service may die of it."""
    now, count = time.time(), 20_000
    users = [f"{now}-{number}-{'x' * 200}" for number in range(count)]
    batch = {"key": str(now), "user_id": users, "timestamp": [now] * count, "score": [0.5] * count}
    stack.offer_scores({"batches": [batch]})


def test_a_stop_under_load_takes_seconds_and_loses_nothing_acknowledged(
    stack: "ComposeStack",
) -> None:
    with Load(stack, "stopped") as load:
        load.wait_for(50)
        began = time.monotonic()
        stack.compose("stop")
        took = time.monotonic() - began
        assert took < 20, "the grace period is 30 s for each: nobody waited for it"
        codes = {name: stack.inspect(name)["State"]["ExitCode"] for name in SERVICES}
        assert codes == {"state-service": 0, "torchserve": 128 + 15}
        stack.up()
        load.wait_for(20)
    assert count_of(stack, "stopped") == load.acknowledged


def test_down_and_up_again_gives_the_same_medians(stack: "ComposeStack") -> None:
    for x in range(5):
        assert stack.predict(event("kept", x)).status == 200
    asked = ("kept", "stopped", "killed-torchserve", "nobody")
    at = time.time()
    before = [stack.state(f"/users/{user}/stats?at={at}&window=200&q=0.1,0.9") for user in asked]
    stack.compose("down")
    stack.up()
    after = [stack.state(f"/users/{user}/stats?at={at}&window=200&q=0.1,0.9") for user in asked]
    assert before == after
    assert before[0]["count"] == 5
    assert json.dumps(before[-1]["median"]) == "null"
