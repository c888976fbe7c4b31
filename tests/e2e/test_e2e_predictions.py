"""The main job on the real TorchServe: events in, scores out, medians kept."""

import json
import statistics
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.contract_support import SPEC

if TYPE_CHECKING:
    from tests.running_stack import RunningStack

ROOT = Path(__file__).parents[2]


@pytest.fixture
def user() -> str:
    return f"user-{uuid.uuid4().hex}"


def event(user: str, **changes: Any) -> dict[str, Any]:
    return {"user_id": user, "timestamp": time.time(), "features": [0.1, 0.2, 0.3], **changes}


def run_generator(stack: "RunningStack", result: Path, *arguments: str) -> Any:
    command = [
        sys.executable, "-m", "generator", "run", "--quiet", "--verify",
        "--url", stack.url(8080, ""), "--state-url", stack.url(8090, ""), "--json", str(result),
    ]  # fmt: skip
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(result.read_text())


def test_a_good_and_a_bad_event_give_one_score_one_error_and_the_median(
    stack: "RunningStack", user: str
) -> None:
    before = stack.get("/stats")
    answer = stack.post({"events": [event(user), {"user_id": user}]})
    assert (answer["processed"], answer["skipped"], answer["recorded"]) == (1, 1, "stored")
    assert answer["scores"][1] is None
    assert answer["errors"][0]["index"] == 1
    median = stack.get(f"/users/{user}/median")
    assert median["median"] == answer["scores"][0]
    assert median["count"] == 1
    after = stack.get("/stats")
    assert after["events_processed"] - before["events_processed"] == 1
    assert after["ingest_requests"] - before["ingest_requests"] == 1
    assert after["median_requests"] - before["median_requests"] == 1
    assert 0 < after["avg_ingest_latency_seconds"] < 5


def test_another_model_is_not_found_as_the_contract_shows(stack: "RunningStack") -> None:
    answer = stack.http.request("POST", stack.url(8080, "/predictions/scoring"), body=b"[]")
    written = SPEC["paths"]["/predictions/scorer"]["post"]["responses"]["default"]
    shown = written["content"]["application/json"]["example"]
    assert (answer.status, answer.json()) == (404, shown)


def test_the_median_of_many_events_is_that_of_their_scores(
    stack: "RunningStack", user: str
) -> None:
    events = [event(user, features=[i / 7, -i, i % 3]) for i in range(101)]
    first = stack.post({"events": events[:50]})
    second = stack.post(events[50:])
    scores = first["scores"] + second["scores"]
    assert len(set(scores)) > 90
    assert stack.get(f"/users/{user}/median")["median"] == statistics.median(scores)
    single = stack.post(event(user))
    assert stack.get(f"/users/{user}/median")["median"] == statistics.median(
        scores + single["scores"]
    )


BAD_BODIES = {
    "an object without events": (b"{}", 400),
    "null": (b"null", 400),
    "events is a number": (b'{"events": 5}', 400),
    "NaN": (b"NaN", 400),
    "truncated": (b'{"events":[{"user_id":"a"', 400),
    "empty": (b"", 400),
    "deeply nested": (b"[" * 50_000, 400),
    "not UTF-8": (b'{"events":"\xff"}', 400),
    "20 MiB": (b"[" + b" " * (20 * 1024 * 1024) + b"]", 413),
    "too many events": (b"[" + b"{}," * 50_000 + b"{}]", 413),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_bad_body_gets_a_clear_4xx_and_the_next_request_works(
    stack: "RunningStack", user: str, name: str
) -> None:
    body, status = BAD_BODIES[name]
    response = stack.post_raw(body)
    assert response.status == status
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["code"]
    assert problem["detail"]
    assert stack.post([event(user)])["processed"] == 1


def test_an_empty_array_is_a_good_request_of_no_events(stack: "RunningStack") -> None:
    answer = stack.post([])
    assert (answer["processed"], answer["skipped"], answer["scores"]) == (0, 0, [])


def test_a_form_post_and_a_get_are_told_what_to_send(stack: "RunningStack", user: str) -> None:
    body = json.dumps(event(user)).encode()
    form = stack.post_raw(body, Content_Type="application/x-www-form-urlencoded")
    assert form.status == 400
    assert "Content-Type: application/json" in form.json()["detail"]
    get = stack.http.request("GET", stack.url(8080, "/predictions/scorer"))
    assert get.status == 400
    assert get.json()["code"] == "empty_body"
    assert stack.get(f"/users/{user}/median")["count"] == 0


def test_good_and_bad_requests_in_one_batch_do_not_touch_each_other(
    stack: "RunningStack", user: str
) -> None:
    good, bad = json.dumps([event(user)]).encode(), b'{"events": 5}'
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda body: stack.post_raw(body).status, [good, bad] * 100))
    assert statuses == [200, 400] * 100
    assert stack.get(f"/users/{user}/median")["count"] == 100


def test_the_same_key_counts_once(stack: "RunningStack", user: str) -> None:
    key = uuid.uuid4().hex
    answers = [stack.post([event(user)], Idempotency_Key=key) for _ in range(3)]
    assert [answer["processed"] for answer in answers] == [1, 1, 1]
    assert stack.get(f"/users/{user}/median")["count"] == 1


def test_a_dry_run_leaves_no_trace(stack: "RunningStack", user: str) -> None:
    before = stack.get("/stats")
    answer = stack.post([event(user)], X_Dry_Run="1")
    assert answer["recorded"] == "dry_run"
    after = stack.get("/stats")
    assert stack.get(f"/users/{user}/median")["count"] == 0
    assert after["ingest_requests"] == before["ingest_requests"]


def test_request_id_and_traceparent_come_back(stack: "RunningStack", user: str) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    body = json.dumps([event(user)]).encode()
    response = stack.post_raw(body, X_Request_ID="my-id", traceparent=trace)
    assert response.json()["request_id"] == "my-id"
    assert response.headers["traceparent"] == trace


def test_the_generator_finds_every_median_right(stack: "RunningStack", tmp_path: Path) -> None:
    arguments = ("--rate", "2000", "--duration", "4", "--users", "500", "--disorder", "30")
    result = run_generator(stack, tmp_path / "result.json", *arguments)
    assert result["sent_events"] == result["accepted_events"] == 8000
    assert result["failed_requests"] == 0
    assert result["verify"]["mismatches"] == 0
    assert result["verify"]["users_checked"] > 400


def test_two_workers_answer_correctly_while_and_after_scaling(
    stack: "RunningStack", tmp_path: Path
) -> None:
    scale = stack.url(8081, "/models/scorer?min_worker={}&synchronous=true")
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(
            run_generator, stack, tmp_path / "during.json", "--rate", "500", "--duration", "8"
        )
        time.sleep(1)
        answer = stack.http.request("PUT", scale.format(2), timeout=60)
        assert answer.status == 200, answer.data
        assert [worker["status"] for worker in stack.workers()] == ["READY", "READY"]
        assert load.result()["verify"]["mismatches"] == 0
    after = run_generator(stack, tmp_path / "after.json", "--rate", "1000", "--duration", "3")
    assert after["failed_requests"] == 0
    assert after["verify"]["mismatches"] == 0
    assert stack.http.request("PUT", scale.format(1), timeout=60).status == 200


def test_management_loads_nothing_from_elsewhere(stack: "RunningStack") -> None:
    for path in ("/models?url=http://127.0.0.1:9/x.mar", "/workflows?url=http://127.0.0.1:9/x.war"):
        assert stack.http.request("POST", stack.url(8081, path)).status >= 400
    assert stack.http.request("DELETE", stack.url(8081, "/models/scorer")).status >= 400
    assert len(stack.workers()) >= 1
