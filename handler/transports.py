"""What TorchServe hands over, by HTTP or by gRPC -> one request. Pure.

TorchServe gives each item as a map of parts and a map of headers, and never says how it came. Its
headers tell, because no client can choose them all:

- *HTTP* always has some: the client's, and `Content-Length` at least. The part `body` is the body;
  of a multipart form, whose parts come under names of the client's, one is. Another
  part is refused: what it asks for would be left undone without a word. (Parameters of the address
  TorchServe drops itself.)
- *gRPC*, by `Predictions` and `StreamPredictions`, has none. What HTTP says in headers stands in
  the call's input map, beside `body` (or `data`, as TorchServe's own examples call it).
- *gRPC sequences*, by `StreamPredictions2`, have TorchServe's `ts_request_sequence_…` alone. They
  need sequence batching, which this model does not use.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

from handler.reading import Request

_BODY, _DATA = "body", "data"
_PART_NAMES = (_DATA, "file", "events")
_ENTRIES = frozenset(
    [
        "content-encoding", "content-type", "idempotency-key", "traceparent", "x-dry-run",
        "x-request-id",
    ]
)  # fmt: skip
_SEQUENCE_PREFIX = "ts_request_sequence_"


class Transport(Enum):
    """How a request came."""

    HTTP = auto()
    GRPC = auto()
    GRPC_SEQUENCE = auto()


def transport_of(headers: Mapping[str, Any]) -> Transport:
    """Tell how a request came from its headers as TorchServe gives them.

    Values that are not strings are TorchServe's notes on the parts, under the parts' names.
    """
    transport = Transport.GRPC
    for name, value in headers.items():
        if isinstance(value, str):
            if not name.startswith(_SEQUENCE_PREFIX):
                return Transport.HTTP
            transport = Transport.GRPC_SEQUENCE
    return transport


def to_request(
    transport: Transport,
    item: Mapping[str, Any],
    headers: Mapping[str, Any],
    request_id: str | None,
) -> Request:
    """Translate TorchServe's item. Names of headers keep their case in HTTP: lower it.

    A form post has no part `body`: None, for TorchServe lost it; so has a multipart form of which
    nobody can tell which part is meant. A gRPC call without one has an empty body.
    """
    if transport is not Transport.HTTP:
        entries = _entries_as_headers(item)
        body = _bytes_of(item.get(_BODY, item.get(_DATA, b"")))
        return Request(body, entries, request_id, tuple(entries.keys() - _ENTRIES))
    strings = {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
    name: str | None = _BODY if _BODY in item else None
    if name is None and strings.get("content-type", "").lower().startswith("multipart/"):
        name = _part(item)
    if name is not None and len(item) == 1:
        return Request(_bytes_of(item[name]), strings, request_id)
    body = None if name is None else _bytes_of(item[name])
    beside = tuple(other for other in item if other != name)
    return Request(body, strings, request_id, beside)


def _part(item: Mapping[str, Any]) -> str | None:
    """Name a multipart form's part that is meant: one of the usual names, or the only one."""
    for name in _PART_NAMES:
        if name in item:
            return name
    return next(iter(item)) if len(item) == 1 else None


def _bytes_of(value: object) -> bytes | None:
    return bytes(value) if isinstance(value, bytes | bytearray) else None


def _entries_as_headers(item: Mapping[str, Any]) -> dict[str, str]:
    """Return the input map's other entries; bytes beyond ASCII are spelt out, four for one.

    So a UUID's 16 bytes are an idempotency key as good as any.
    """
    return {
        name.lower(): value.decode("ascii", "backslashreplace")
        for name, value in item.items()
        if name not in (_BODY, _DATA) and isinstance(value, bytes | bytearray)
    }
