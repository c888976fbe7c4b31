"""A batch of requests becomes as many answers, whatever one of them holds."""

import gc
import io
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import pyarrow as pa
import pytest
import torch
import urllib3
from torch import nn

from handler.answering import Answer
from handler.batches import Batch, BatchResult
from handler.create_model import create_state_dict
from handler.network import build
from handler.pipeline import Pipeline
from handler.reading import Request
from handler.recording import RecordingError, StateClient, group_by_events
from handler.scoring import Scorer
from handler.settings import HandlerSettings
from handler.stages import Stages

UNREACHABLE = "http://127.0.0.1:9"  # the discard port: refused at once


class CountingNetwork(nn.Module):
    """The default network, counting forwards and the events in each."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = build(3)
        self.inner.load_state_dict(create_state_dict())
        self.forwards: list[int] = []

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        self.forwards.append(len(features))
        scores: torch.Tensor = self.inner(features)
        return scores


class CountingClient(StateClient):
    """The real client, counting calls and the batches in each."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.calls: list[int] = []

    def record(
        self,
        batches: Sequence[Batch],
        timeout_seconds: float,
        stages: Mapping[str, Sequence[float]] | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> list[BatchResult]:
        self.calls.append(len(batches))
        return super().record(batches, timeout_seconds, stages, meanwhile)


@pytest.fixture
def network() -> CountingNetwork:
    return CountingNetwork()


@pytest.fixture
def client(state_url: str) -> Iterator[CountingClient]:
    client = CountingClient(state_url)
    yield client
    client.close()


@pytest.fixture
def pipeline(network: CountingNetwork, client: CountingClient) -> Pipeline:
    pipeline = Pipeline(HandlerSettings(), Scorer(network, 3, torch.device("cpu")), client)
    network.forwards.clear()  # the check at load is not counted
    return pipeline


@pytest.fixture
def median(state_url: str) -> Callable[[str], Any]:
    def ask(user_id: str) -> Any:
        response = urllib3.request("GET", f"{state_url}/users/{user_id}/median")
        assert response.status == 200
        return response.json()

    return ask


def event(user_id: str = "user-1", **changes: Any) -> dict[str, Any]:
    return {"user_id": user_id, "timestamp": time.time(), "features": [0.1, 0.2, 0.3], **changes}


def request(*events: Any, **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps({"events": events}).encode()
    return Request(body, {"content-type": "application/json", **named})


def body_of(answer: Answer) -> Any:
    return json.loads(answer.body)


def test_a_batch_takes_one_forward_and_one_call_however_many_requests(
    pipeline: Pipeline, network: CountingNetwork, client: CountingClient
) -> None:
    answers = pipeline.process([request(*[event()] * size) for size in (1, 5, 3)])
    assert [body_of(answer)["processed"] for answer in answers] == [1, 5, 3]
    assert network.forwards == [16], "9 events, padded to a block of 16 rows"
    assert client.calls == [3]


def test_scores_align_with_the_events_and_skipped_ones_are_null(
    pipeline: Pipeline, median: Callable[[str], Any]
) -> None:
    (answer,) = pipeline.process(
        [request(event(), {"user_id": "user-1"}, event(features=[1, 2, 3]), event(timestamp=None))]
    )
    body = body_of(answer)
    assert answer.status == 200
    assert answer.content_type == "application/json"
    assert (body["processed"], body["skipped"], body["recorded"]) == (2, 2, "stored")
    assert [score is None for score in body["scores"]] == [False, True, False, True]
    assert [error["index"] for error in body["errors"]] == [1, 3]
    assert median("user-1")["count"] == 2
    assert median("user-1")["median"] == (body["scores"][0] + body["scores"][2]) / 2


def test_a_request_scores_the_same_alone_and_among_others(pipeline: Pipeline) -> None:
    mine = request(event(features=[0.5, -1, 2]), event())
    (alone,) = pipeline.process([mine])
    *_, among, _ = pipeline.process([request(event()), mine, request(event())])
    assert body_of(among)["scores"] == body_of(alone)["scores"]


def test_a_bad_request_does_not_touch_its_neighbours(
    pipeline: Pipeline, client: CountingClient, median: Callable[[str], Any]
) -> None:
    bad = [
        Request(None, {"content-type": "application/x-www-form-urlencoded"}),
        Request(b"", {}),
        Request(b"{", {}),
        Request(b"[" * 100_000, {}),
        Request(b" " * (16 * 1024 * 1024 + 1), {}),
        request(event(), idempotency_key="k" * 129),
        request(event(), idempotency_key=""),
        request(event(), x_dry_run="maybe"),
        Request(b"[]", {"content-type": "application/vnd.apache.arrow.stream"}),
    ]
    answers = pipeline.process([request(event("first")), *bad, request(event("last"))])
    assert [answer.status for answer in answers] == [200] + [400] * 4 + [413] + [400] * 4 + [200]
    for answer in answers[1:-1]:
        assert answer.content_type == "application/problem+json"
        assert body_of(answer)["status"] == answer.status
        assert body_of(answer)["code"]
        assert body_of(answer)["detail"]
    assert client.calls == [2]
    assert median("first")["count"] == median("last")["count"] == 1


@pytest.mark.parametrize(
    "content_type",
    ["application/x-ndjson", "application/ndjson; charset=utf-8", "Application/JSONL"],
)
def test_lines_are_answered_like_json_in_the_same_batch(
    pipeline: Pipeline, network: CountingNetwork, content_type: str
) -> None:
    events = [event(), {"user_id": "x"}, event("user-2", features=[3, 2, 1])]
    body = "\n".join(map(json.dumps, events)).encode()
    answers = pipeline.process([Request(body, {"content-type": content_type}), request(*events)])
    assert [answer.status for answer in answers] == [200, 200]
    assert body_of(answers[0]) == body_of(answers[1])
    assert body_of(answers[0])["processed"] == 2
    assert network.forwards == [16]


def test_an_arrow_stream_is_scored_and_recorded_with_the_others(
    pipeline: Pipeline, client: CountingClient, median: Callable[[str], Any]
) -> None:
    table = pa.table(
        {
            "user_id": ["arrow", None],
            "timestamp": [time.time()] * 2,
            "features": pa.array([[0.1, 0.2, 0.3]] * 2, pa.list_(pa.float32(), 3)),
        }
    )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    arrow = Request(sink.getvalue(), {"content-type": "application/vnd.apache.arrow.stream"})
    answers = pipeline.process([request(event("json")), arrow])
    (score,) = body_of(answers[0])["scores"]
    assert body_of(answers[1])["scores"] == [score, None]
    assert client.calls == [2]
    assert median("arrow")["median"] == median("json")["median"] == score


def test_a_type_that_is_not_served_names_the_one_that_is(pipeline: Pipeline) -> None:
    headers = {"content-type": "application/vnd.apache.arrow.file"}
    (answer,) = pipeline.process([Request(b"ARROW1", headers)])
    assert (answer.status, body_of(answer)["code"]) == (400, "unsupported_content_type")
    assert "application/vnd.apache.arrow.stream" in body_of(answer)["detail"]


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/octet-stream"])
def test_a_body_of_no_known_type_is_read_as_json(
    pipeline: Pipeline, content_type: str | None
) -> None:
    headers = {"content-type": content_type} if content_type else {}
    (answer,) = pipeline.process([Request(request(event()).body, headers)])
    assert answer.status == 200


def test_neither_an_answer_nor_a_refusal_leaves_garbage_in_cycles(pipeline: Pipeline) -> None:
    """Or a refused body would stay in memory until the next collection."""
    requests = [
        request(event(), x_dry_run="1"),
        request({}, x_dry_run="1"),
        request(event(), x_dry_run="maybe"),
        Request(b"{", {}),
        Request(b"{", {"content-type": "application/vnd.apache.arrow.stream"}),
    ]
    pipeline.process(requests)
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            pipeline.process(requests)
        found = gc.collect()
    finally:
        gc.enable()
    assert found < 10


def test_a_lost_form_body_names_the_header_to_add(pipeline: Pipeline) -> None:
    (answer,) = pipeline.process([Request(None, {})])
    assert "Content-Type: application/json" in body_of(answer)["detail"]


def test_a_dry_run_scores_and_records_nothing(
    pipeline: Pipeline, client: CountingClient, median: Callable[[str], Any]
) -> None:
    dry, real = pipeline.process([request(event("dry"), x_dry_run="1"), request(event("real"))])
    assert body_of(dry)["recorded"] == "dry_run"
    assert body_of(dry)["scores"] == body_of(real)["scores"]
    assert client.calls == [1]
    assert (median("dry")["count"], median("real")["count"]) == (0, 1)


def test_a_repeated_key_counts_once_and_answers_the_same_counts(
    pipeline: Pipeline, median: Callable[[str], Any]
) -> None:
    key = uuid.uuid4().hex
    events = [event(), event(timestamp=time.time() - 1000), event(timestamp=time.time() + 1000)]
    first, twin = pipeline.process([request(*events, idempotency_key=key)] * 2)
    (again,) = pipeline.process([request(*events, idempotency_key=key)])
    assert (body_of(first)["late"], body_of(first)["future"]) == (1, 1)
    assert "duplicate" not in body_of(first)
    assert {**body_of(first), "duplicate": True} == body_of(twin) == body_of(again)
    assert median("user-1")["count"] == 1


def test_a_key_used_again_for_an_empty_request_answers_the_first_one_s_counts(
    pipeline: Pipeline,
) -> None:
    future = event(timestamp=time.time() + 1000)
    pipeline.process([request(future, idempotency_key="reused")])
    (answer,) = pipeline.process([request(idempotency_key="reused")])
    assert (answer.status, body_of(answer)["future"]) == (200, 1)


def test_a_request_that_torchserve_runs_twice_counts_once(
    pipeline: Pipeline, median: Callable[[str], Any]
) -> None:
    same = Request(request(event()).body, {}, request_id="given by TorchServe")
    pipeline.process([same])
    pipeline.process([same])
    assert median("user-1")["count"] == 1


def test_a_service_that_stalls_leaves_a_doubt_that_the_named_key_resolves(
    network: CountingNetwork, state_url: str, median: Callable[[str], Any]
) -> None:
    """The first attempt is counted although its answer comes too late; the second adds nothing."""

    class Late(StateClient):
        def record(
            self,
            batches: Sequence[Batch],
            timeout_seconds: float,
            stages: Mapping[str, Sequence[float]] | None = None,
            meanwhile: Callable[[], None] = lambda: None,
        ) -> list[BatchResult]:
            super().record(batches, timeout_seconds, stages, meanwhile)
            raise RecordingError("timed out", in_doubt=True)

    scorer = Scorer(network, 3, torch.device("cpu"))
    with closing(Late(state_url)) as late:
        pipeline = Pipeline(HandlerSettings(), scorer, late)
        (doubt,) = pipeline.process([Request(request(event()).body, {}, request_id="abc")])
    assert (doubt.status, body_of(doubt)["code"]) == (503, "not_confirmed")
    assert body_of(doubt)["idempotency_key"] == "abc"
    assert median("user-1")["count"] == 1
    key = body_of(doubt)["idempotency_key"]
    with closing(StateClient(state_url)) as client:
        again = Pipeline(HandlerSettings(), scorer, client)
        (answer,) = again.process([request(event(), idempotency_key=key)])
    assert (answer.status, body_of(answer)["duplicate"]) == (200, True)
    assert median("user-1")["count"] == 1


def test_a_request_that_the_state_service_refuses_does_not_fail_its_neighbours(
    network: CountingNetwork, start_state: Callable[..., str]
) -> None:
    with closing(CountingClient(start_state("--max-live-events", "10"))) as client:
        pipeline = Pipeline(HandlerSettings(), Scorer(network, 3, torch.device("cpu")), client)
        answers = pipeline.process([request(event()), request(*[event()] * 20), request(event())])
    assert [answer.status for answer in answers] == [200, 503, 200]
    assert body_of(answers[1])["code"] == "not_recorded"
    assert client.calls == [3, 1, 1, 1]
    client.close()


def test_requests_without_a_key_are_each_counted(
    pipeline: Pipeline, median: Callable[[str], Any]
) -> None:
    same = request(event())
    pipeline.process([same, same])
    pipeline.process([same])
    assert median("user-1")["count"] == 3


def test_milliseconds_are_recognised(pipeline: Pipeline) -> None:
    (answer,) = pipeline.process([request(event(timestamp=time.time() * 1000))])
    assert body_of(answer)["future"] == 1
    assert "milliseconds" in body_of(answer)["hint"]


def test_the_request_id_is_echoed_in_good_and_bad_answers(pipeline: Pipeline) -> None:
    requests = [request(event(), x_request_id="abc"), Request(b"{", {"x-request-id": "def"})]
    good, bad, none = pipeline.process([*requests, request()])
    assert body_of(good)["request_id"] == "abc"
    assert body_of(bad)["request_id"] == "def"
    assert "request_id" not in body_of(none)


def test_at_most_a_hundred_errors_are_listed(pipeline: Pipeline) -> None:
    (answer,) = pipeline.process([request(*[{}] * 101, event())])
    assert body_of(answer)["skipped"] == 101
    assert len(body_of(answer)["errors"]) == 100
    assert body_of(answer)["errors_truncated"] is True


@pytest.mark.parametrize("events", [[], [{}]])
def test_a_request_without_good_events_is_answered_200(
    pipeline: Pipeline, network: CountingNetwork, events: list[Any]
) -> None:
    (answer,) = pipeline.process([request(*events)])
    assert (answer.status, body_of(answer)["processed"]) == (200, 0)
    assert network.forwards == []


def test_without_a_state_service_each_recorded_request_gets_503_and_a_dry_run_its_scores(
    network: CountingNetwork,
) -> None:
    client = StateClient(UNREACHABLE)
    pipeline = Pipeline(HandlerSettings(), Scorer(network, 3, torch.device("cpu")), client)
    answers = pipeline.process(
        [request(event()), request(event(), x_dry_run="1"), Request(b"{", {})]
    )
    assert [answer.status for answer in answers] == [503, 200, 400]
    assert answers[0].headers == {"Retry-After": "1"}
    assert body_of(answers[0])["code"] == "not_recorded"


class Unscorable(nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return 1 / features.sum(1)


def test_an_event_without_a_finite_score_is_skipped_and_named(
    client: CountingClient, median: Callable[[str], Any]
) -> None:
    pipeline = Pipeline(HandlerSettings(), Scorer(Unscorable(), 3, torch.device("cpu")), client)
    (answer,) = pipeline.process(
        [request({}, event(features=[0, 0, 0]), event(features=[1, 1, 2]), {})]
    )
    body = body_of(answer)
    assert body["scores"] == [None, None, 0.25, None]
    assert [(error["index"], error["code"]) for error in body["errors"]] == [
        (0, "missing"), (1, "score_not_finite"), (3, "missing"),
    ]  # fmt: skip
    assert (body["processed"], body["skipped"]) == (1, 3)
    assert median("user-1")["median"] == 0.25


class Moody(nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if features.max() > 10:
            raise RuntimeError("out of mood")
        return features.sum(1)


def test_a_model_that_fails_on_one_request_answers_503_to_that_one(client: CountingClient) -> None:
    pipeline = Pipeline(HandlerSettings(), Scorer(Moody(), 3, torch.device("cpu")), client)
    failed, bad, good = pipeline.process(
        [request(event(features=[11, 0, 0])), Request(b"{", {}), request(event(features=[1, 0, 1]))]
    )
    assert (failed.status, body_of(failed)["code"]) == (503, "scoring_failed")
    assert bad.status == 400
    assert body_of(good)["scores"] == [2.0]
    assert client.calls == [1]
    (answer,) = pipeline.process([request(event())])
    assert answer.status == 200


def test_bodies_beyond_one_call_are_cut_into_several() -> None:
    assert list(group_by_events([], 8)) == []
    assert list(group_by_events([20], 8)) == [range(1)]
    assert list(group_by_events([4, 4, 9, 1], 8)) == [range(2), range(2, 3), range(3, 4)]


def test_what_a_batch_took_is_told_with_the_next(pipeline: Pipeline, state_url: str) -> None:
    pipeline.process([request(event())])
    pipeline.process([request(event())])
    stages = urllib3.request("GET", f"{state_url}/stats").json()["stages"]
    counts = {stage: stages[stage]["count"] for stage in ("decode", "score", "record", "respond")}
    assert counts == {"decode": 2, "score": 2, "record": 1, "respond": 1}
    assert all(stages[stage]["seconds_total"] > 0 for stage in counts)


def test_durations_that_nobody_takes_do_not_pile_up() -> None:
    stages = Stages()
    for _ in range(10_000):
        with stages.measure("decode"):
            pass
    assert len(stages.take()["decode"]) == 256
    assert stages.take() == {}


class Refusing(StateClient):
    """A state service that answers so, standing in for one that is in trouble."""

    def __init__(self, error: Exception) -> None:
        super().__init__(UNREACHABLE)
        self.error = error
        self.calls = 0

    def record(self, *_: object, **__: object) -> list[BatchResult]:
        self.calls += 1
        raise self.error


@pytest.mark.parametrize(
    ("error", "status", "code", "calls"),
    [
        (RecordingError("busy", in_doubt=False), 503, "not_recorded", 1),
        (RecordingError("lost", in_doubt=True), 503, "not_confirmed", 1),
        (RecordingError("full", in_doubt=False, refused=True), 503, "not_recorded", 3),
        (RecordingError("too long", in_doubt=False, invalid=True), 500, "internal_error", 3),
        (ZeroDivisionError(), 503, "not_confirmed", 1),
    ],
)
def test_whatever_recording_raises_each_request_gets_its_answer(
    network: CountingNetwork, error: Exception, status: int, code: str, calls: int
) -> None:
    client = Refusing(error)
    pipeline = Pipeline(HandlerSettings(), Scorer(network, 3, torch.device("cpu")), client)
    answers = pipeline.process([request(event()), request(event())])
    assert [answer.status for answer in answers] == [status] * 2
    assert [body_of(answer)["code"] for answer in answers] == [code] * 2
    assert client.calls == calls, "tried one by one only where that may help"


def test_half_a_surrogate_in_a_header_harms_nobody(pipeline: Pipeline) -> None:
    answers = pipeline.process([request(event(), x_request_id="\ud800"), request(event())])
    assert [answer.status for answer in answers] == [200, 200]
    assert body_of(answers[0])["request_id"] == "?"


@pytest.mark.parametrize("key", ["", "k" * 129, "clé", "\ud800"])
def test_a_key_that_could_not_come_back_as_it_was_is_refused(pipeline: Pipeline, key: str) -> None:
    (answer,) = pipeline.process([request(event(), idempotency_key=key)])
    assert (answer.status, body_of(answer)["code"]) == (400, "invalid_idempotency_key")


def test_a_compressed_body_is_refused_by_name(pipeline: Pipeline) -> None:
    (answer,) = pipeline.process([request(event(), content_encoding="gzip")])
    assert (answer.status, body_of(answer)["code"]) == (400, "unsupported_content_encoding")


def test_a_failure_is_logged_once_and_so_is_its_end(
    network: CountingNetwork, state_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Recovering(Refusing):
        def record(self, *arguments: Any, **named: Any) -> list[BatchResult]:
            if self.calls < 3:
                return super().record()
            with closing(StateClient(state_url)) as real:
                return real.record(*arguments, **named)

    client = Recovering(RecordingError("refused", in_doubt=False))
    pipeline = Pipeline(HandlerSettings(), Scorer(network, 3, torch.device("cpu")), client)
    for _ in range(5):
        pipeline.process([request(event())])
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "not recorded: refused; told again when the reason changes",
        "recording works again",
    ]
