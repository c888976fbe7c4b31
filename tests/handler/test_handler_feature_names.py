"""Where the model YAML names the features, an event's errors do."""

import json
from typing import Any

import pyarrow as pa
import pytest

from handler.decoding import ARROW, JSON, NDJSON, decode
from handler.events import EventShape

SHAPE = EventShape(3, 50, 16, ("age", "amount", "country_risk"))


def details(features: Any) -> set[str]:
    """Return what JSON and NDJSON say of an event with these features."""
    body = json.dumps({"user_id": "u", "timestamp": 1, "features": features}).encode()
    found = [error for form in (JSON, NDJSON) for error in decode(body, form, SHAPE).errors]
    assert [error.field for error in found] == ["features", "features"]
    return {error.detail for error in found}


@pytest.mark.parametrize(
    ("features", "named"),
    [
        ([1, 2], "3 numbers (age, amount, country_risk), got 2"),
        ([1, None, 3], "features[1] (amount)"),
        ([1, 2, "3"], "features[2] (country_risk)"),
        ([1e300, 2, 3], "features[0] (age)"),
        (7, "3 numbers (age, amount, country_risk)"),
    ],
)
def test_an_error_names_the_feature(features: Any, named: str) -> None:
    (detail,) = details(features)
    assert named in detail


def test_an_error_in_an_arrow_stream_names_the_feature() -> None:
    columns = {
        "user_id": ["u", "v"],
        "timestamp": [1.0, 1.0],
        "features": pa.array([[1, None, 3], [1, 2]], pa.list_(pa.float32())),
    }
    batch = pa.record_batch(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    null, short = decode(sink.getvalue().to_pybytes(), ARROW, SHAPE).errors
    assert "features[1] (amount)" in null.detail
    assert "3 numbers (age, amount, country_risk), got 2" in short.detail
