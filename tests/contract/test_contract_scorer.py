"""What the handler reads and answers is what the contract says of TorchServe's side."""

import ast
import io
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

import handler
from handler import answering
from handler.answering import encode_scores
from handler.arrow_messages import MAX_MESSAGES
from handler.batches import BatchResult
from handler.decoding import ARROW, JSON, NDJSON, decode
from handler.errors import RequestError
from handler.events import EventColumns, EventShape
from handler.settings import HandlerSettings
from tests.contract.contract_support import SPEC, check_answer, pointer, problems, schema_of

PATH = "/predictions/scorer"
OPERATION = SPEC["paths"][PATH]["post"]
SHAPE = EventShape(features=3, max_events=50_000, max_user_id_bytes=256)
EVENT = {"user_id": "ann", "timestamp": 1.5, "features": [1, 2.5, -3e10]}

# One event for each way in which an event can be wrong.
MALFORMED: list[Any] = [
    7,
    {"timestamp": 1, "features": [1, 2, 3]},
    EVENT | {"user_id": None},
    EVENT | {"user_id": ""},
    EVENT | {"user_id": "u" * 257},
    EVENT | {"timestamp": "now"},
    EVENT | {"features": [1, 2]},
    EVENT | {"features": [1, 2, 1e300]},
]


def _decode(body: Any) -> EventColumns:
    return decode(msgspec.json.encode(body), JSON, SHAPE)


def _check(answer: answering.Answer) -> Any:
    check_answer(
        "post",
        PATH,
        answer.status,
        content_type=answer.content_type,
        body=answer.body,
        headers=answer.headers,
    )
    return msgspec.json.decode(answer.body)


def _predict(
    body: Any, result: BatchResult | None, limit: int = 100, request_id: str | None = None
) -> Any:
    columns = _decode(body)
    scores = np.linspace(0, 1, len(columns.user_ids))
    return _check(
        answering.prediction(
            columns,
            encode_scores(columns, scores),
            recorded="dry_run" if result is None else answering.recorded_as(columns, result),
            result=result,
            max_errors_listed=limit,
            request_id=request_id,
        )
    )


@pytest.mark.parametrize(
    "body",
    [
        {"events": [EVENT, EVENT | {"user_id": 7}]},
        {"events": []},
        [EVENT],
        [],
        EVENT,
        EVENT | {"else": 1},
        {"events": [EVENT], "else": 1},
    ],
)
def test_a_body_of_the_contract_is_read_without_errors(body: Any) -> None:
    schema = pointer("paths", PATH, "post", "requestBody", "content", "application/json", "schema")
    assert problems(schema, body) == []
    assert _decode(body).errors == []


@pytest.mark.parametrize("event", MALFORMED)
def test_an_event_that_the_contract_calls_malformed_is_skipped_and_explained(event: Any) -> None:
    (error,) = _decode([event]).errors
    assert problems(schema_of("EventError"), msgspec.to_builtins(error)) == []
    # Its schema knows neither bytes, nor the model's feature count, nor float32.
    if error.code not in ("wrong_length", "out_of_range"):
        assert problems(schema_of("Event"), event)


def test_the_contracts_examples_are_read_without_errors() -> None:
    for example in OPERATION["requestBody"]["content"]["application/json"]["examples"].values():
        columns = _decode(example["value"])
        assert columns.total == len(columns.user_ids) > 0


def test_a_line_that_is_not_json_is_skipped_and_explained_as_documented() -> None:
    (error,) = decode(b"{", NDJSON, SHAPE).errors
    assert problems(schema_of("EventError"), msgspec.to_builtins(error)) == []


def test_the_contracts_lines_are_read_without_errors() -> None:
    content = OPERATION["requestBody"]["content"]["application/x-ndjson"]
    columns = decode(content["examples"]["lines"]["value"].encode(), NDJSON, SHAPE)
    assert (columns.total, columns.user_ids) == (2, ["alice", "bob"])


def test_the_contracts_arrow_stream_is_read_without_errors() -> None:
    content = OPERATION["requestBody"]["content"]["application/vnd.apache.arrow.stream"]
    sink = io.BytesIO()
    exec(content["examples"]["stream"]["value"], {"pyarrow": pa, "sink": sink})  # noqa: S102  # our own example
    columns = decode(sink.getvalue(), ARROW, SHAPE)
    assert (columns.total, columns.user_ids) == (1, ["alice"])
    assert f"at most {MAX_MESSAGES:,} record batches" in content["schema"]["description"]


def test_every_form_of_prediction_is_as_documented() -> None:
    result = BatchResult(accepted=1, late=1, future=0, duplicate=False)
    body = _predict([EVENT, EVENT], result)
    assert (body["recorded"], body["late"], body["scores"]) == ("stored", 1, [0.0, 1.0])
    assert "errors_truncated" not in body
    assert "request_id" not in body
    assert _predict([EVENT], None)["recorded"] == "dry_run"
    body = _predict([EVENT, *MALFORMED], result, limit=3, request_id="r-1")
    assert body["errors_truncated"] is True
    assert len(body["errors"]) == 3
    assert body["scores"] == [0.0] + [None] * len(MALFORMED)
    assert body["request_id"] == "r-1"
    assert _predict([EVENT], BatchResult(1, 0, 0, duplicate=True))["duplicate"] is True
    future = BatchResult(accepted=0, late=0, future=1, duplicate=False)
    body = _predict([EVENT | {"timestamp": 1.7e12}], future)
    assert body["recorded"] == "nothing"
    assert "milliseconds" in body["hint"]
    body = _predict(MALFORMED, BatchResult(0, 0, 0, duplicate=False))
    assert (body["processed"], body["recorded"]) == (0, "nothing")
    assert _predict([], None)["scores"] == []


def _problems_of_the_handler() -> set[tuple[int, str]]:
    """Return (status, code) of every `RequestError` that the handler's sources raise."""
    found = set()
    for module in Path(*handler.__path__).glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "RequestError"
            ):
                status, code = (
                    argument.value
                    for argument in node.args[:2]
                    if isinstance(argument, ast.Constant)
                )
                found.add((int(str(status)), str(code)))
    return found


@pytest.mark.parametrize("request_id", [None, "r-1"])
def test_every_problem_of_the_handler_is_as_documented(request_id: str | None) -> None:
    for status, code in _problems_of_the_handler():
        error = RequestError(status, code, "what happened")
        key = "k" if code == "not_confirmed" else None
        answer = answering.problem(error, 1, request_id, key)
        assert _check(answer).get("request_id") == request_id
        assert ("Retry-After" in answer.headers) == (status == 503)
        description = OPERATION["responses"][str(status)]["description"]
        assert f"| `{code}` |" in description


def test_every_documented_problem_of_the_handler_exists() -> None:
    documented = {
        (int(status), code)
        for status, answer in OPERATION["responses"].items()
        if status in {str(status) for status, _ in _problems_of_the_handler()}
        for part in answer["content"]["application/problem+json"]["schema"]["allOf"]
        for code in part.get("properties", {}).get("code", {}).get("enum", [])
    }
    assert documented == _problems_of_the_handler()


def test_the_limits_of_the_contract_are_the_handlers_defaults() -> None:
    settings = HandlerSettings()
    schemas = SPEC["components"]["schemas"]
    for form in schemas["PredictionRequest"]["anyOf"][:2]:
        events = form["properties"]["events"] if "properties" in form else form
        assert events["maxItems"] == settings.max_events
    assert schemas["Prediction"]["properties"]["errors"]["maxItems"] == settings.max_errors_listed
    headers = {parameter["name"]: parameter["schema"] for parameter in OPERATION["parameters"]}
    assert headers["Idempotency-Key"]["maxLength"] == settings.max_idempotency_key_bytes
    assert f"{settings.max_body_bytes // 2**20} MiB" in OPERATION["requestBody"]["description"]
    assert settings.state_url.endswith(":8090")
