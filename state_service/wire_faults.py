"""What is wrong with a body that could not be decoded, and what to send instead. Pure.

Nothing here is on the way of a good body. The decoder says the kind of fault and most often the
place; here the body is looked at once more, to say the rest.
"""

import re
from collections.abc import Callable
from typing import Any

import msgspec

NOT_DECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # RFC 8259 lets a reader skip it

_MAX_REASON_CHARS = 300
_MAX_LOOKED_AT_BYTES = 2**20  # of a body whose names are looked at
_ONE_REQUEST = (
    'one object, {"batches": [{"key": …, "user_id": […], "timestamp": […], "score": […]}]}'
)
_ONE_QUESTION = 'one object, {"user_ids": ["alice", …]}, with "window" and "at" if you like'
_FIELDS_OF_A_BATCH = {"key", "user_id", "timestamp", "score"}
# Python's json.dumps writes these; they stand where a number does.
_NOT_FINITE = re.compile(rb"(?<=[\[,:\s])(-?Infinity|NaN)(?=[\s,\]}]|$)")
_OTHER_FORMS = (
    (re.compile(rb"\s*$"), "there is no body"),
    (re.compile(rb"\xff\xfe|\xfe\xff|.\x00", re.DOTALL), "the body is UTF-16, and UTF-8 is read"),
    (
        re.compile(rb"\x1f\x8b|\x28\xb5\x2f\xfd"),
        "the body is compressed, and no header Content-Encoding says how",
    ),
    (re.compile(rb"\s*[^\s{\[]"), "the body is not JSON"),
)


_any = msgspec.json.Decoder(Any).decode


def explained_scores(
    text: bytes, content_type: str, error: Exception, decode: Callable[[bytes], object]
) -> str:
    """Say what is wrong with the body of a `POST /scores`, and what to send.

    `decode` is what could not decode it.
    """
    if not isinstance(error, msgspec.ValidationError) and (place := _not_finite(text, decode)):
        return (
            f"{place} is NaN or infinite, and JSON has no such numbers: leave that event out; "
            "nothing of this request was recorded"
        )
    if form := _of_another_form(text, content_type, _ONE_REQUEST):
        return form
    names = _names(text)
    if "events" in names or "features" in names:
        return (
            "events go to POST /ingest, or to TorchServe's POST /predictions/scorer; "
            f"here come scores: {_ONE_REQUEST}"
        )
    if "batches" not in names and names & _FIELDS_OF_A_BATCH:
        return f"a batch stands in a list, beside others: send {_ONE_REQUEST}"
    return f"the body is not a list of batches: {_brief(error)}; send {_ONE_REQUEST}"


def explained_medians(text: bytes, content_type: str, error: Exception) -> str:
    """Say what is wrong with the body of a `POST /medians`, and what to send."""
    form = _of_another_form(text, content_type, _ONE_QUESTION)
    return form or f"the body is not a question for medians: {_brief(error)}; send {_ONE_QUESTION}"


def explained_msgpack(error: Exception) -> str:
    """Say what is wrong with a body in MessagePack."""
    return f"the body is not a list of batches: {_brief(error)}"


def _not_finite(text: bytes, decode: Callable[[bytes], object]) -> str | None:
    """Return the place of the first number that is none, if that is what is wrong.

    As the text of its name it is JSON, of the wrong type, and the decoder knows where.
    """
    try:
        decode(_NOT_FINITE.sub(rb'"\1"', text))
    except msgspec.ValidationError as error:
        place = re.search(r"got `str` - at `\$\.(.+)`", str(error))
        return place and place[1]
    except NOT_DECODABLE:
        pass
    return None


def _of_another_form(text: bytes, content_type: str, wanted: str) -> str | None:
    """Tell a body that is no JSON at all, or is several."""
    start = text.lstrip()[:1]
    if content_type.startswith("multipart/"):
        return f"a form is not read: send {wanted} itself, with curl by --data-binary @file"
    for begins, what in _OTHER_FORMS:
        if begins.match(text):
            return f"{what}: send {wanted}"
    first, _, rest = text.partition(b"\n")
    if start == b"{" and rest.strip() and _any_json(first) is not None:
        return f"the body is several JSON documents, one a line: send {wanted}"
    return None


def _any_json(text: bytes) -> object:
    """Return what a text is as JSON; None when it is none, or too long to look at."""
    if len(text) > _MAX_LOOKED_AT_BYTES:
        return None
    try:
        return _any(text)
    except NOT_DECODABLE:
        return None


def _names(text: bytes) -> set[str]:
    """Return the names in the body's object, or in the first of its list."""
    value = _any_json(text)
    if isinstance(value, list) and value:
        value = value[0]
    return set(value) if isinstance(value, dict) else set()


def _brief(error: Exception) -> str:
    """Return a reason, cut: it may quote the name of a field, which may be as long as a body."""
    reason = str(error)
    return reason if len(reason) <= _MAX_REASON_CHARS else f"{reason[:_MAX_REASON_CHARS]}…"
