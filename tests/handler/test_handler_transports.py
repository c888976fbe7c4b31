"""HTTP and gRPC requests are told apart, and neither can pass for the other."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.reading import Request
from handler.transports import Transport, to_request, transport_of

# What TorchServe puts beside the headers: notes on each part, under the part's name.
PART_NOTES = st.dictionaries(st.text(), st.just({"content-type": ""}))
PARTS = st.dictionaries(
    st.sampled_from(["body", "data", "idempotency-key", "x-dry-run", "explain"]) | st.text(),
    st.binary().map(bytearray),
)
# No client can leave these out, and none can send them through gRPC.
HTTP_HEADERS = {"Host": "localhost", "Content-Length": "2"}


def _request(item: Mapping[str, object], headers: Mapping[str, object]) -> Request:
    return to_request(transport_of(headers), item, headers, "id")


@given(notes=PART_NOTES, headers=st.dictionaries(st.text(), st.text()))
def test_http_is_told_by_its_headers_and_grpc_by_having_none(
    notes: dict[str, object], headers: dict[str, str]
) -> None:
    assert transport_of({**notes, **headers, **HTTP_HEADERS}) is Transport.HTTP
    assert transport_of(notes) is Transport.GRPC
    sequence = {"ts_request_sequence_id": "a", "ts_request_sequence_end": "true"}
    assert transport_of({**notes, **sequence}) is Transport.GRPC_SEQUENCE
    assert transport_of({**notes, **sequence, **HTTP_HEADERS}) is Transport.HTTP


@given(parts=PARTS)
def test_the_parts_of_a_request_are_never_headers(parts: dict[str, bytearray]) -> None:
    """Nor is one the body, unless it is called so: query parameters come as parts too."""
    notes = {name: {"content-type": "text/plain"} for name in parts}
    request = _request(parts, {**notes, **HTTP_HEADERS})
    assert dict(request.headers) == {"host": "localhost", "content-length": "2"}
    assert request.body == parts.get("body")
    assert set(request.beside) == parts.keys() - {"body"}


@pytest.mark.parametrize("name", ["body", "data", "file", "events", "upload"])
def test_a_part_of_a_multipart_form_is_the_body(name: str) -> None:
    headers = {**HTTP_HEADERS, "Content-Type": "multipart/form-data; boundary=x"}
    assert _request({name: bytearray(b"[]")}, headers).body == b"[]"
    assert _request({"else": bytearray(b"?"), name: bytearray(b"[]")}, headers).body == (
        b"[]" if name != "upload" else None
    )


@given(parts=PARTS)
def test_a_grpc_call_s_entries_are_its_headers_and_body_comes_before_data(
    parts: dict[str, bytearray],
) -> None:
    notes = {name: {"content-type": ""} for name in parts}
    request = _request(parts, notes)
    assert request.body == parts.get("body", parts.get("data", b""))
    assert set(request.headers) == {name.lower() for name in parts if name not in {"body", "data"}}
    assert all(value.isascii() for value in request.headers.values())
    assert set(request.beside) == set(request.headers) - {"idempotency-key", "x-dry-run"}


def test_names_of_entries_may_be_in_any_case() -> None:
    request = _request({"body": b"[]", "Idempotency-Key": bytearray(b"once")}, {})
    assert request.headers == {"idempotency-key": "once"}


def test_binary_keys_stay_apart() -> None:
    keys = [
        _request({"idempotency-key": bytes([byte]) * 16}, {}).headers["idempotency-key"]
        for byte in range(256)
    ]
    assert len(set(keys)) == 256
    assert max(len(key.encode()) for key in keys) <= 128
