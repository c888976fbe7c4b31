"""Client requests -> what each asks for, or a `RequestError` that says what is wrong. Pure."""

import uuid
from collections.abc import Mapping, Sequence

import msgspec

from handler.decoding import Format, decode_together
from handler.errors import RequestError
from handler.events import EventColumns, EventShape
from handler.media_types import recognise
from handler.settings import HandlerSettings
from handler.unpacking import encoding_of, unpack

# TorchServe hands over no body of a form.
_LOST = (
    "a form post, as curl's -d makes it: its body is lost on the way. Add the header "
    "Content-Type: application/json (with curl, -H 'Content-Type: application/json'), or send the "
    "events as one file of a multipart form (with curl, -F data=@events.json)"
)
_NO_PART = (
    "none of the multipart form's parts is the only one, or is named data: name the one that has "
    "the events so (with curl, -F data=@events.json)"
)
_HEADER = "it is a header (over gRPC an entry of the input map): "
_QUESTION = "it belongs to a question, such as GET /users/{user_id}/median of the state service"
# Where people's names for what they want belong, in lower case and with underscores.
_PLACES = {
    "dry_run": f"{_HEADER}X-Dry-Run: 1",
    "dryrun": f"{_HEADER}X-Dry-Run: 1",
    "x_dry_run": f"{_HEADER}X-Dry-Run: 1",
    "idempotency_key": f"{_HEADER}Idempotency-Key",
    "key": f"{_HEADER}Idempotency-Key",
    "request_id": f"{_HEADER}X-Request-ID",
    "x_request_id": f"{_HEADER}X-Request-ID",
    "at": _QUESTION,
    "q": _QUESTION,
    "window": _QUESTION,
    "version": "it belongs into the address: /predictions/scorer/{version}",
}
_TRUE, _FALSE = ("1", "true", "yes"), ("", "0", "false", "no")


class Request(msgspec.Struct, frozen=True):
    """One client request as TorchServe hands it over.

    `body` is None when TorchServe lost it (form posts); header names are in lower case;
    `request_id` is TorchServe's own, the same when it runs a request a second time; `beside` names
    what came beside body and headers and is not known, such as another part of a form.
    """

    body: bytes | None
    headers: Mapping[str, str]
    request_id: str | None = None
    beside: tuple[str, ...] = ()


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
        _check_wants_scores(request.headers)
        key = _idempotency_key(request, settings.max_idempotency_key_bytes)
        dry_run = _dry_run(request.headers)
        body = _body(request, settings.max_body_bytes)
        _refuse_unknown(request.beside)
        form, body = recognise(request.headers.get("content-type", ""), body)
        return _Opened(key, dry_run, body, form)
    except RequestError as error:
        return error.bare()


def _read(opened: _Opened, decoded: EventColumns | RequestError) -> ReadRequest | RequestError:
    if isinstance(decoded, RequestError):
        return decoded
    return ReadRequest(opened.dry_run, opened.key, decoded)


def asks_which_model(request: Request) -> bool:
    """Tell TorchServe's question behind `GET /models/scorer?customized=true`: it has no body."""
    return not request.body and request.headers.get("describe", "").lower() in _TRUE


def _check_wants_scores(headers: Mapping[str, str]) -> None:
    """Refuse what TorchServe marks as a call for an explanation: it would count as an event."""
    if "explain" in headers and headers["explain"].lower() in _TRUE:
        raise RequestError(
            400,
            "no_explanations",
            "this model scores and explains nothing; nothing was recorded: "
            "POST the events to /predictions/scorer, without the header 'explain'",
        )


def _refuse_unknown(names: Sequence[str]) -> None:
    """Refuse what would not be looked at, and say where it belongs."""
    if not names:
        return
    name = min(names)
    place = _PLACES.get(name.lower().replace("-", "_"), "leave it out")
    raise RequestError(
        400,
        "unknown_parameter",
        f"'{name[:100]}' beside the events is not known here, nothing was recorded: {place}",
    )


def _body(request: Request, max_bytes: int) -> bytes:
    """Return the body, unpacked."""
    body = request.body
    if body is None:
        multipart = request.headers.get("content-type", "").lower().startswith("multipart/")
        lost = _NO_PART if multipart else _LOST
        raise RequestError(400, "unsupported_content_type", lost)
    if not body:
        raise RequestError(400, "empty_body", "the body is empty: POST events")
    if len(body) > max_bytes:
        raise RequestError(
            413, "body_too_large", f"{len(body)} bytes; the limit is {max_bytes}: send several"
        )
    encoding = encoding_of(request.headers.get("content-encoding"), body)
    return body if encoding is None else unpack(body, encoding, max_bytes)


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
    if "x-dry-run" not in headers:
        return False
    value = headers["x-dry-run"].strip().lower()
    if value not in _TRUE + _FALSE:
        raise RequestError(400, "invalid_dry_run", "X-Dry-Run must be 1 or 0")
    return value in _TRUE
