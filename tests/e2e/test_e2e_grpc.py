"""The same job over TorchServe's gRPC: the same bytes in, the same bytes out."""

import importlib
import json
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from stack.grpc_stubs import write_stubs

if TYPE_CHECKING:
    from tests.running_stack import RunningStack

ROOT = Path(__file__).parents[2]
BODY_LIMIT = 16 * 1024 * 1024
SECONDS = 30


class Scorer:
    """The calls, as a client makes them with the generated modules."""

    def __init__(self, channel: grpc.Channel, stubs: Path) -> None:
        sys.path.insert(0, str(stubs))
        try:
            self._messages: Any = importlib.import_module("inference_pb2")
            services: Any = importlib.import_module("inference_pb2_grpc")
        finally:
            sys.path.remove(str(stubs))
        self.calls = services.InferenceAPIsServiceStub(channel)

    def request(self, **entries: bytes) -> Any:
        named = {name.replace("_", "-"): value for name, value in entries.items()}
        return self._messages.PredictionsRequest(model_name="scorer", input=named)

    def predict_raw(self, **entries: bytes) -> bytes:
        prediction: bytes = self.calls.Predictions(
            self.request(**entries), timeout=SECONDS
        ).prediction
        return prediction

    def predict(self, document: Any, **entries: bytes) -> Any:
        return json.loads(self.predict_raw(body=json.dumps(document).encode(), **entries))


@pytest.fixture(scope="session")
def scorer(stack: "RunningStack", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scorer]:
    stubs = tmp_path_factory.mktemp("stubs")
    write_stubs(stubs)
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"127.0.0.1:{7070 + stack.offset}", options) as channel:
        yield Scorer(channel, stubs)


@pytest.fixture
def user() -> str:
    return f"user-{uuid.uuid4().hex}"


@pytest.fixture
def same_workers(stack: "RunningStack") -> Iterator[None]:
    """Assert that no worker was lost, and that HTTP is still answered."""
    before = [worker["pid"] for worker in stack.workers()]
    yield
    assert stack.post([])["processed"] == 0
    assert [worker["pid"] for worker in stack.workers()] == before


def event(user: str, **changes: Any) -> dict[str, Any]:
    return {"user_id": user, "timestamp": time.time(), "features": [0.1, 0.2, 0.3], **changes}


def test_the_events_of_a_call_are_scored_recorded_and_in_the_median(
    stack: "RunningStack", scorer: Scorer, user: str
) -> None:
    events = [event(user, features=[i / 7, -i, i % 3]) for i in range(31)]
    answer = scorer.predict({"events": events})
    assert (answer["processed"], answer["recorded"]) == (31, "stored")
    median = stack.get(f"/users/{user}/median")
    assert median["median"] == statistics.median(answer["scores"])
    assert median["count"] == 31


def test_the_same_bytes_get_the_same_bytes_as_over_http(
    stack: "RunningStack", scorer: Scorer, user: str
) -> None:
    bodies = [
        json.dumps({"events": [event(user), {"user_id": user}]}).encode(),
        json.dumps(event(user)).encode(),
        b"[]",
        b'{"events": 5}',
        b"NaN",
        b"",
    ]
    for body in bodies:
        assert scorer.predict_raw(body=body) == stack.post_raw(body).data
    assert scorer.predict_raw(data=bodies[1]) == stack.post_raw(bodies[1]).data


def test_a_bad_event_is_reported_in_the_body(scorer: Scorer, user: str) -> None:
    answer = scorer.predict([event(user), event(user, features=[1, 2])])
    assert (answer["processed"], answer["skipped"]) == (1, 1)
    assert answer["scores"][1] is None
    assert answer["errors"] == [
        {
            "index": 1,
            "field": "features",
            "code": "wrong_length",
            "detail": "expected 3 numbers, got 2",
        }
    ]


def test_a_bad_body_gets_a_problem_whose_status_is_in_the_body(scorer: Scorer) -> None:
    problem = json.loads(scorer.predict_raw(body=b'{"events": 5}'))
    assert (problem["status"], problem["code"]) == (400, "events_not_array")
    nothing = json.loads(scorer.predict_raw())
    assert (nothing["status"], nothing["code"]) == (400, "empty_body")


@pytest.mark.parametrize("key", [b"order-17", uuid.UUID(int=2**127 + 12345).bytes, b"\x00\xff" * 8])
def test_an_idempotency_key_repeated_counts_once(
    stack: "RunningStack", scorer: Scorer, user: str, key: bytes
) -> None:
    own = key + user.encode()
    answers = [scorer.predict([event(user)], idempotency_key=own) for _ in range(3)]
    assert [answer["processed"] for answer in answers] == [1, 1, 1]
    assert stack.get(f"/users/{user}/median")["count"] == 1


def test_a_key_first_sent_over_http_is_known_over_grpc(
    stack: "RunningStack", scorer: Scorer, user: str
) -> None:
    key = uuid.uuid4().hex
    stack.post([event(user)], Idempotency_Key=key)
    assert scorer.predict([event(user)], idempotency_key=key.encode())["duplicate"]
    assert stack.get(f"/users/{user}/median")["count"] == 1


def test_a_key_that_is_too_long_is_refused(scorer: Scorer, user: str) -> None:
    problem = scorer.predict([event(user)], idempotency_key=b"k" * 129)
    assert (problem["status"], problem["code"]) == (400, "invalid_idempotency_key")


def test_a_dry_run_records_nothing_and_the_request_id_comes_back(
    stack: "RunningStack", scorer: Scorer, user: str
) -> None:
    answer = scorer.predict([event(user)], x_dry_run=b"1", x_request_id=b"my-id")
    assert (answer["recorded"], answer["request_id"]) == ("dry_run", "my-id")
    assert stack.get(f"/users/{user}/median")["count"] == 0


@pytest.mark.usefixtures("same_workers")
def test_entries_of_any_size_do_no_harm(scorer: Scorer, user: str) -> None:
    large = b"x" * BODY_LIMIT
    answer = scorer.predict([event(user)], traceparent=large)
    assert answer["processed"] == 1
    assert scorer.predict([event(user)], x_request_id=large)["request_id"] == "x" * 256
    assert scorer.predict([event(user)], x_dry_run=large)["status"] == 400
    problem = scorer.predict([event(user)], something_else=large)
    assert (problem["status"], problem["code"]) == (400, "unknown_parameter")


@pytest.mark.usefixtures("same_workers")
def test_a_body_at_the_limit_is_scored_and_one_beyond_is_refused(scorer: Scorer, user: str) -> None:
    body = json.dumps([event(user)]).encode().ljust(BODY_LIMIT)
    assert json.loads(scorer.predict_raw(body=body))["processed"] == 1
    problem = json.loads(scorer.predict_raw(body=body + b" "))
    assert (problem["status"], problem["code"]) == (413, "body_too_large")
    with pytest.raises(grpc.RpcError):  # TorchServe's own limit: max_request_size
        scorer.predict_raw(body=body * 2)


def test_many_calls_over_grpc_and_http_keep_apart(stack: "RunningStack", scorer: Scorer) -> None:
    def over_grpc(body: bytes, name: str) -> Any:
        return json.loads(scorer.predict_raw(body=body, x_request_id=name.encode()))

    def over_http(body: bytes, name: str) -> Any:
        return stack.post_raw(body, X_Request_ID=name).json()

    def streamed(body: bytes, name: str) -> Any:
        request = scorer.request(body=body, x_request_id=name.encode())
        (answer,) = scorer.calls.StreamPredictions(request, timeout=SECONDS)
        return json.loads(answer.prediction)

    ways: list[Callable[[bytes, str], Any]] = [over_grpc, over_http, streamed]
    run = uuid.uuid4().hex

    def send(index: int) -> Any:
        name = f"{run}-{index}"
        good = json.dumps(event(name, features=[index, 1, 2])).encode()
        body = good if index % 5 else b'{"events": 5}'
        return ways[index % 3](body, name)

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(send, range(300)))
    for index, answer in enumerate(answers):
        assert answer["request_id"] == f"{run}-{index}"
        median = stack.get(f"/users/{run}-{index}/median")
        if index % 5:
            assert answer["processed"] == median["count"] == 1
            assert answer["scores"] == [median["median"]]
        else:
            assert (answer["status"], median["count"]) == (400, 0)


@pytest.mark.usefixtures("same_workers")
def test_stream_predictions_gets_its_one_answer_and_the_worker_lives(
    stack: "RunningStack", scorer: Scorer, user: str
) -> None:
    for body in (json.dumps([event(user)]).encode(), b'{"events": 5}'):
        answers = list(scorer.calls.StreamPredictions(scorer.request(body=body), timeout=SECONDS))
        assert len(answers) == 1
    assert stack.get(f"/users/{user}/median")["count"] == 1


@pytest.mark.usefixtures("same_workers")
def test_stream_predictions_2_is_refused_counts_nothing_and_harms_nobody(
    stack: "RunningStack", scorer: Scorer, user: str
) -> None:
    """An answer that comes too late for it would leave no worker for the requests after it."""
    body = json.dumps([event(user)]).encode()

    def sequence(name: str, count: int = 2) -> None:
        request = scorer.request(body=body)
        request.sequence_id = name
        with pytest.raises(grpc.RpcError):
            list(scorer.calls.StreamPredictions2(iter([request] * count), timeout=SECONDS))

    for index in range(12):
        sequence(f"alone-{index}", 1 + index % 2)
    with ThreadPoolExecutor(8) as pool:
        sequences = [pool.submit(sequence, f"sequence-{i}") for i in range(20)]
        answers = list(pool.map(lambda _: scorer.predict([event(user)]), range(20)))
        for done in sequences:
            done.result()
    assert [answer["processed"] for answer in answers] == [1] * 20
    assert stack.get(f"/users/{user}/median")["count"] == 20


def test_after_calls_that_were_cancelled_others_are_answered(scorer: Scorer, user: str) -> None:
    """TorchServe may lose its worker to a call cancelled in the moment of its answer."""
    body = json.dumps([event(user)]).encode()
    for wait_seconds in [0, 0.001, 0.002, 0.003, 0.005, 0.01] * 10:
        call = scorer.calls.Predictions.future(scorer.request(body=body), timeout=SECONDS)
        time.sleep(wait_seconds)
        call.cancel()
    try:
        answer = scorer.predict_raw(body=body)
    except grpc.RpcError:  # it shared the batch of the call that cost the worker
        answer = scorer.predict_raw(body=body)
    assert json.loads(answer)["processed"] == 1


@pytest.mark.usefixtures("same_workers")
def test_parts_of_a_form_are_not_taken_for_headers_but_refused(
    stack: "RunningStack", user: str
) -> None:
    for name in ("idempotency-key", "x-dry-run", "ts_request_sequence_id"):
        fields = {"body": json.dumps([event(user)]), name: "1"}
        response = stack.http.request("POST", stack.url(8080, "/predictions/scorer"), fields=fields)
        assert (response.status, response.json()["code"]) == (400, "unknown_parameter")
    assert stack.get(f"/users/{user}/median")["count"] == 0


@pytest.mark.usefixtures("same_workers")
def test_torchserve_s_headers_for_sequences_mean_nothing_over_http(
    stack: "RunningStack", user: str
) -> None:
    headers = {"Content-Type": "application/json", "ts_request_sequence_id": "a"}
    response = stack.http.request(
        "POST", stack.url(8080, "/predictions/scorer"), json=[event(user)], headers=headers
    )
    assert response.json()["processed"] == 1
    assert stack.get(f"/users/{user}/median")["count"] == 1


def test_the_stubs_are_written_by_a_command(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "stubs"
    done = subprocess.run(
        [sys.executable, "-m", "stack.grpc_stubs", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {"inference.proto", "inference_pb2.py", "inference_pb2_grpc.py"} <= {
        path.name for path in folder.iterdir()
    }
    refused = subprocess.run(
        [sys.executable, "-m", "stack.grpc_stubs", str(folder / "inference.proto")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
