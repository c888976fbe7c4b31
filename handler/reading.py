"""One client request -> what it asks for, or a `RequestError` that says what is wrong. Pure."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from handler.decoding import EventColumns, EventShape, decode_json
from handler.errors import RequestError
from handler.settings import HandlerSettings

_TRUE, _FALSE = ("1", "true", "yes"), ("", "0", "false", "no")
_NOT_SERVED = ("application/x-ndjson", "application/vnd.apache.arrow.stream")


@dataclass(frozen=True, slots=True)
class Request:
    """One client request as TorchServe hands it over.

    `body` is None when TorchServe lost it (form posts); header names are in lower case;
    `request_id` is TorchServe's own, the same when it runs a request a second time.
    """

    body: bytes | None
    headers: Mapping[str, str]
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """One request, understood."""

    body_bytes: int
    dry_run: bool
    key: str
    columns: EventColumns


def read_request(request: Request, settings: HandlerSettings) -> ReadRequest:
    """Read headers and events. Raises `RequestError` 400 or 413."""
    shape = EventShape(settings.features, settings.max_events, settings.max_user_id_bytes)
    key = _idempotency_key(request, settings.max_idempotency_key_bytes)
    dry_run = _dry_run(request.headers)
    body = _body(request, settings.max_body_bytes)
    return ReadRequest(len(body), dry_run, key, decode_json(body, shape))


def _body(request: Request, max_bytes: int) -> bytes:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.body is None:
        raise RequestError(
            400,
            "unsupported_content_type",
            "the body did not arrive: add the header Content-Type: application/json",
        )
    if content_type in _NOT_SERVED:
        raise RequestError(
            400, "unsupported_content_type", f"{content_type}: send application/json instead"
        )
    if not request.body:
        raise RequestError(400, "empty_body", "the body is empty: POST JSON events")
    if len(request.body) > max_bytes:
        raise RequestError(
            413, "body_too_large", f"{len(request.body)} bytes; the limit is {max_bytes}"
        )
    return request.body


def _idempotency_key(request: Request, max_bytes: int) -> str:
    """Return the client's key; without one TorchServe's id, so that a second run counts once."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return request.request_id or uuid.uuid4().hex
    if not 1 <= len(key.encode()) <= max_bytes:
        raise RequestError(
            400, "invalid_idempotency_key", f"Idempotency-Key must have 1 to {max_bytes} bytes"
        )
    return key


def _dry_run(headers: Mapping[str, str]) -> bool:
    value = headers.get("x-dry-run", "").strip().lower()
    if value not in _TRUE + _FALSE:
        raise RequestError(400, "invalid_dry_run", "X-Dry-Run must be 1 or 0")
    return value in _TRUE
