"""What the pipeline records counts once, and a client learns what became of it."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

import pytest
import torch
import urllib3

from handler.batches import Batch, BatchResult
from handler.pipeline import Pipeline
from handler.reading import Request
from handler.recording import RecordingError, StateClient, group_by_events
from handler.scoring import Scorer
from handler.settings import HandlerSettings
from handler.stages import Stages
from tests.handler.pipeline_support import (
    UNREACHABLE,
    CountingClient,
    CountingNetwork,
    body_of,
    event,
    request,
)


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


def test_events_that_are_skipped_are_told_the_state_service_also_when_there_are_no_others(
    pipeline: Pipeline, state_url: str
) -> None:
    def skipped() -> int:
        return int(urllib3.request("GET", f"{state_url}/stats").json()["skipped"])

    before = skipped()
    (answer,) = pipeline.process([request(*[event(features=[])] * 700)])
    assert body_of(answer)["processed"] == 0
    assert skipped() == before + 700


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


def test_a_token_that_is_refused_is_no_fault_of_the_clients_and_told_once(
    network: CountingNetwork,
    start_state: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = start_state("--write-token", "write-token-of-the-tests")
    scorer = Scorer(network, 3, torch.device("cpu"))
    for token in (None, "another-token-of-the-tests"):
        with closing(CountingClient(url, token)) as client:
            pipeline = Pipeline(HandlerSettings(), scorer, client)
            answers = [pipeline.process([request(event()), request(event())]) for _ in range(2)]
        assert [answer.status for pair in answers for answer in pair] == [503] * 4
        assert body_of(answers[0][0])["code"] == "not_recorded"
        assert client.calls == [2, 2]
        (record,) = caplog.records
        assert "state_token_file must hold its write token" in record.getMessage()
        assert "another-token" not in caplog.text
        caplog.clear()
    with closing(StateClient(url, "write-token-of-the-tests")) as right:
        (answer,) = Pipeline(HandlerSettings(), scorer, right).process([request(event())])
    assert (answer.status, body_of(answer)["recorded"]) == (200, "stored")


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


@pytest.mark.parametrize("key", ["", "k" * 129, "clé", "\ud800"])
def test_a_key_that_could_not_come_back_as_it_was_is_refused(pipeline: Pipeline, key: str) -> None:
    (answer,) = pipeline.process([request(event(), idempotency_key=key)])
    assert (answer.status, body_of(answer)["code"]) == (400, "invalid_idempotency_key")


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
