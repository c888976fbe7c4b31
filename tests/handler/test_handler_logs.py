"""The handler's log lines, for machines and for people."""

import io
import json
import logging
import time
from datetime import datetime
from typing import Any

import pytest
import torch
from msgspec.structs import replace

from handler.logs import JsonLines, TextLines, fields, shown_ids
from handler.pipeline import Pipeline
from handler.scoring import Scorer
from handler.settings import HandlerSettings
from tests.handler.pipeline_support import (
    UNREACHABLE,
    CountingClient,
    CountingNetwork,
    event,
    request,
)

HOSTILE = 'a\n[METRICS]x.Count:1|#|#type:GAUGE|#hostname:h,1\n{"event": "b"}\u2028"'


def _written(formatter: logging.Formatter, log: logging.Logger, act: Any) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    log.addHandler(handler)
    try:
        act()
    finally:
        log.removeHandler(handler)
    return stream.getvalue()


@pytest.fixture
def log() -> logging.Logger:
    log = logging.getLogger("handler.tested")
    log.setLevel(logging.DEBUG)
    return log


def test_a_message_is_one_json_object_on_one_line(log: logging.Logger) -> None:
    line = _written(
        JsonLines(), log, lambda: log.warning("it %s", HOSTILE, extra=fields(request_id=HOSTILE))
    )
    assert line.count("\n") == 1
    message = json.loads(line)
    assert message["event"] == f"it {HOSTILE}"
    assert message["request_id"] == HOSTILE
    assert (message["level"], message["logger"]) == ("warning", "handler.tested")
    written_at = datetime.fromisoformat(message["timestamp"]).timestamp()
    assert written_at == pytest.approx(time.time(), abs=60)


def test_an_exception_is_a_field(log: logging.Logger) -> None:
    def refuse() -> None:
        raise ValueError(HOSTILE)

    def fail() -> None:
        try:
            refuse()
        except ValueError:
            log.exception("it failed")

    line = _written(JsonLines(), log, fail)
    assert line.count("\n") == 1
    assert HOSTILE in json.loads(line)["exception"]
    text = _written(TextLines(), log, fail)
    assert text.startswith("ERROR handler.tested: it failed\n  Traceback")


def test_no_line_of_text_begins_as_a_client_wants_it(log: logging.Logger) -> None:
    text = _written(TextLines(), log, lambda: log.error(HOSTILE, extra=fields(key=HOSTILE)))
    first, *others = text.splitlines()
    assert first == "ERROR handler.tested: a"
    assert all(line.startswith("  ") for line in others)


def test_fields_without_a_value_are_left_out() -> None:
    assert fields(request_id=None, ids=[], skipped=0) == {"fields": {"skipped": 0}}


def test_few_of_many_ids_are_shown() -> None:
    assert shown_ids([None, "a", None]) == ["a"]
    assert len(shown_ids(map(str, range(1000)))) == 10


def _messages(pipeline: Pipeline, level: int, *requests: Any) -> list[dict[str, Any]]:
    log = logging.getLogger("handler")
    before = log.level
    log.setLevel(level)
    try:
        text = _written(JsonLines(), log, lambda: pipeline.process(requests))
    finally:
        log.setLevel(before)
    return [json.loads(line) for line in text.splitlines()]


def test_at_debug_each_request_is_told_without_its_users(pipeline: Pipeline) -> None:
    events = event("very-secret"), {"user_id": "very-secret"}
    good = request(*events, x_request_id="r1", traceparent="t1")
    bad = replace(good, body=b"very-secret", headers={**good.headers, "x-request-id": "r2"})
    told, refused = _messages(pipeline, logging.DEBUG, good, bad)
    assert told["event"] == refused["event"] == "answered"
    assert (told["request_id"], told["traceparent"], told["status"]) == ("r1", "t1", 200)
    assert (told["recorded"], told["processed"], told["skipped"]) == ("stored", 1, 1)
    assert told["key"]
    assert (refused["request_id"], refused["status"]) == ("r2", 400)
    assert "very-secret" not in json.dumps([told, refused])
    assert _messages(pipeline, logging.INFO, good) == []


def test_a_failure_names_the_requests_that_it_concerns(network: CountingNetwork) -> None:
    client = CountingClient(UNREACHABLE)
    pipeline = Pipeline(HandlerSettings(), Scorer(network, 3, torch.device("cpu")), client)
    first, second = request(event(), x_request_id="r1"), request(event(), x_request_id="r2")
    (told,) = _messages(pipeline, logging.INFO, first, second)
    assert told["level"] == "warning"
    assert told["event"].startswith("not recorded: ")
    assert told["request_ids"] == ["r1", "r2"]
    client.close()
