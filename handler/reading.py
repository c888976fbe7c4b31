"""Client requests -> what each asks for, or a `RequestError` that says what is wrong. Pure."""

import uuid
from collections.abc import Mapping, Sequence

import msgspec

from handler.decoding import ARROW, JSON, NDJSON, Format, decode_together
from handler.errors import RequestError
from handler.events import EventColumns, EventShape
from handler.settings import HandlerSettings

_TRUE, _FALSE = ("1", "true", "yes"), ("", "0", "false", "no")

# Any other type, or none, is read as JSON: clients forget the header, and `curl` sends its own.
_FORMATS = {
    "application/x-ndjson": NDJSON,
    "application/ndjson": NDJSON,
    "application/jsonl": NDJSON,
    "application/vnd.apache.arrow.stream": ARROW,
}
_NOT_SERVED = {"application/vnd.apache.arrow.file": "application/vnd.apache.arrow.stream"}


class Request(msgspec.Struct, frozen=True):
    """One client request as TorchServe hands it over.

    `body` is None when TorchServe lost it (form posts); header names are in lower case;
    `request_id` is TorchServe's own, the same when it runs a request a second time.
    """

    body: bytes | None
    headers: Mapping[str, str]
    request_id: str | None = None


class ReadRequest(msgspec.Struct, frozen=True):
    """One request, understood."""

    dry_run: bool
    key: str
    columns: EventColumns


def read_requests(
    requests: Sequence[Request], settings: HandlerSettings
) -> list[ReadRequest | RequestError]:
    """Read headers and events of each, all events in one pass; an error is a 400 or a 413."""
    shape = EventShape(
        settings.feature_count,
        settings.max_events,
        settings.max_user_id_bytes,
        settings.feature_names,
    )
    opened = [_open(request, settings) for request in requests]
    bodies = [(item.body, item.form) for item in opened if isinstance(item, _Opened)]
    decoded = iter(decode_together(bodies, shape))
    return [
        item if isinstance(item, RequestError) else _read(item, next(decoded)) for item in opened
    ]


class _Opened(msgspec.Struct, frozen=True):
    """One request whose headers are understood and whose body may be decoded."""

    key: str
    dry_run: bool
    body: bytes
    form: Format


def _open(request: Request, settings: HandlerSettings) -> _Opened | RequestError:
    try:
        key = _idempotency_key(request, settings.max_idempotency_key_bytes)
        dry_run = _dry_run(request.headers)
        form = _format(request)
        return _Opened(key, dry_run, _body(request, settings.max_body_bytes), form)
    except RequestError as error:
        return error.bare()


def _read(opened: _Opened, decoded: EventColumns | RequestError) -> ReadRequest | RequestError:
    if isinstance(decoded, RequestError):
        return decoded
    return ReadRequest(opened.dry_run, opened.key, decoded)


def _format(request: Request) -> Format:
    """Tell how the body is to be read, by its content type."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.body is None:
        raise RequestError(
            400,
            "unsupported_content_type",
            "the body did not arrive: add the header Content-Type: application/json",
        )
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in {"", "identity"}:
        raise RequestError(
            400,
            "unsupported_content_encoding",
            f"Content-Encoding {encoding[:100]!a}: send it as it is",  # it is any text
        )
    if instead := _NOT_SERVED.get(content_type):
        raise RequestError(
            400, "unsupported_content_type", f"{content_type}: send {instead} instead"
        )
    return _FORMATS.get(content_type, JSON)


def _body(request: Request, max_bytes: int) -> bytes:
    if not request.body:
        raise RequestError(400, "empty_body", "the body is empty: POST events")
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
    # Beyond ASCII a header arrives as other characters than were sent, and could not be named.
    if not (key.isascii() and 1 <= len(key) <= max_bytes):
        raise RequestError(
            400,
            "invalid_idempotency_key",
            f"Idempotency-Key must have 1 to {max_bytes} bytes of ASCII",
        )
    return key


def _dry_run(headers: Mapping[str, str]) -> bool:
    value = headers.get("x-dry-run", "").strip().lower()
    if value not in _TRUE + _FALSE:
        raise RequestError(400, "invalid_dry_run", "X-Dry-Run must be 1 or 0")
    return value in _TRUE
