"""A batch of requests becomes as many answers, whatever one of them holds."""

import gc
import io
import json
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import nn

from handler.identity import ModelIdentity
from handler.pipeline import Pipeline
from handler.reading import Request
from handler.scoring import Scorer
from handler.settings import HandlerSettings
from tests.handler.pipeline_support import (
    CountingClient,
    CountingNetwork,
    body_of,
    event,
    request,
)


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


@pytest.mark.parametrize(
    ("factor", "unit", "divisor"),
    [(1e3, "milliseconds", "1000"), (1e6, "microseconds", "1000000"),
     (1e9, "nanoseconds", "1000000000")],
)  # fmt: skip
def test_a_unit_that_is_not_seconds_is_named_with_the_division(
    pipeline: Pipeline, factor: float, unit: str, divisor: str
) -> None:
    (answer,) = pipeline.process([request(event(timestamp=time.time() * factor))])
    body = body_of(answer)
    assert (body["future"], body["recorded"]) == (1, "nothing")
    assert f"{unit}: divide them by {divisor}," in body["hint"]


def test_seconds_since_a_start_are_told_from_epoch_seconds(pipeline: Pipeline) -> None:
    (answer,) = pipeline.process([request(event(timestamp=12.5))])
    assert body_of(answer)["late"] == 1
    assert "epoch seconds are wanted" in body_of(answer)["hint"]


@pytest.mark.parametrize("ahead", [300, 1e300, -300])
def test_a_wrong_clock_gets_no_hint_of_a_unit(pipeline: Pipeline, ahead: float) -> None:
    (answer,) = pipeline.process([request(event(timestamp=time.time() + ahead - 1))])
    assert "hint" not in body_of(answer)


def test_nothing_is_recorded_when_no_event_is_kept(
    pipeline: Pipeline, median: Callable[[str], Any]
) -> None:
    late, future = event("kept", timestamp=time.time() - 400), event("kept", timestamp=4e9)
    bodies = {
        "nothing": [request(), request({}, {}), request(late, future), request({}, late)],
        "stored": [request(late, {}, event("kept"))],
        "dry_run": [request({}, x_dry_run="1")],
    }
    for recorded, requests in bodies.items():
        assert [body_of(item)["recorded"] for item in pipeline.process(requests)] == (
            [recorded] * len(requests)
        ), recorded
    assert median("kept")["count"] == 1


def test_a_repeat_is_called_what_the_first_was(pipeline: Pipeline) -> None:
    kept = request(event("a"), {}, idempotency_key="kept")
    late = request(event("a", timestamp=time.time() - 400), idempotency_key="late")
    first = [body_of(answer) for answer in pipeline.process([kept, late])]
    again = [body_of(answer) for answer in pipeline.process([kept, late])]
    assert [body["recorded"] for body in first] == ["stored", "nothing"]
    assert again == [body | {"duplicate": True} for body in first]


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


def test_half_a_surrogate_in_a_header_harms_nobody(pipeline: Pipeline) -> None:
    answers = pipeline.process([request(event(), x_request_id="\ud800"), request(event())])
    assert [answer.status for answer in answers] == [200, 200]
    assert body_of(answers[0])["request_id"] == "?"


def test_half_a_surrogate_in_a_refused_header_leaves_the_neighbours_alone(
    pipeline: Pipeline,
) -> None:
    odd = request(event(), content_encoding="x\ud800")
    refused, answer = pipeline.process([odd, request(event())])
    assert (refused.status, body_of(refused)["code"]) == (400, "unsupported_content_encoding")
    assert answer.status == 200


def test_a_call_for_an_explanation_is_refused_and_counts_nothing(
    pipeline: Pipeline, client: CountingClient, network: CountingNetwork
) -> None:
    answers = pipeline.process(
        [request(event(), explain="True"), request(event()), request(event(), explain="False")]
    )
    assert [answer.status for answer in answers] == [400, 200, 200]
    assert body_of(answers[0])["code"] == "no_explanations"
    assert "nothing was recorded" in body_of(answers[0])["detail"]
    assert client.calls == [2]
    assert network.forwards == [16]


def test_the_question_which_model_this_is_has_an_answer_and_needs_no_forward(
    network: CountingNetwork, client: CountingClient
) -> None:
    model = ModelIdentity("scorer", "2.0", 3, "my.pt", "0123456789ab", ("a", "b", "c"))
    scorer = Scorer(network, 3, torch.device("cpu"))
    network.forwards.clear()
    pipeline = Pipeline(HandlerSettings(), scorer, client, model=model)
    (told, empty, scored) = pipeline.process(
        [
            Request(b"", {"describe": "True"}),
            Request(b"", {}),
            request(event(), describe="True"),  # a client's own header hides no events
        ]
    )
    assert told.status == 200
    assert body_of(told) == {
        "name": "scorer",
        "version": "2.0",
        "features": 3,
        "weights": "my.pt",
        "weights_sha256": "0123456789ab",
        "feature_names": ["a", "b", "c"],
    }
    assert (empty.status, body_of(empty)["code"]) == (400, "empty_body")
    assert body_of(scored)["recorded"] == "stored"
    assert client.calls == [1]
