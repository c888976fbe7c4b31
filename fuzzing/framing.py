"""Requests that are odd as HTTP: lengths, chunks, headers, pipelines, other protocols.

Pure. A request with `whole=False` lacks something that its head promises: a server may wait for it
until the client closes its side.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from fuzzing.tokens import FORGED

_KIB = 1024


@dataclass(frozen=True, slots=True)
class Sending:
    """Bytes for a server, on a connection of their own; `ordinary`: one well-formed request."""

    name: str
    raw: bytes
    whole: bool = True
    ordinary: bool = False


def request(
    method: str,
    path: bytes | str,
    body: bytes = b"",
    headers: tuple[tuple[str, str], ...] = (),
) -> bytes:
    """Write an HTTP/1.1 request with a Content-Length; what is in it is the caller's affair."""
    target = path if isinstance(path, bytes) else path.encode()
    lines = [f"{name}: {value}".encode("utf-8", "surrogateescape") for name, value in headers]
    head = [method.encode() + b" " + target + b" HTTP/1.1", b"Host: localhost", *lines]
    return b"\r\n".join([*head, b"Content-Length: %d" % len(body), b"", b""]) + body


def oddities(path: str, content_type: str, body: bytes) -> Iterator[Sending]:
    """Yield odd requests around a good one: a POST of `body` to `path`."""
    good = request("POST", path, body, (("Content-Type", content_type),))
    start = f"POST {path} HTTP/1.1\r\n".encode()
    head = start + f"Host: localhost\r\nContent-Type: {content_type}\r\n".encode()
    yield from _lengths(head, body)
    yield from _chunks(head, body)
    for name, header in _HEADERS:
        raw = head + header + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        yield Sending(name, raw)
    yield Sending("no host", start + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    yield from _versions(good)
    yield Sending("a pipeline", good * 20)
    broken = b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"
    yield Sending("a pipeline with a broken end", good * 5 + broken)
    for length in (1, 5, len(good) // 2, len(good) - 1):
        yield Sending(f"cut after {length} bytes", good[:length], whole=False)


def _lengths(head: bytes, body: bytes) -> Iterator[Sending]:
    size = len(body)

    def with_length(length: bytes) -> bytes:
        return head + b"Content-Length: " + length + b"\r\n\r\n" + body

    for name, length in (
        ("negative", b"-1"), ("signed", b"+%d" % size), ("hexadecimal", b"0x10"),
        ("of blanks", b" "), ("of text", b"many"), ("a list", b"%d, %d" % (size, size)),
        ("of 400 digits", b"9" * 400), ("beyond 64 bits", b"%d" % (2**64 + size)),
        ("with an underscore", b"1_0"), ("a fraction", b"1.5"), ("too large", b"%d" % (size + 9)),
        ("of gigabytes", b"99999999999"),
        ("of another script", "\N{ARABIC-INDIC DIGIT ONE}".encode()),
    ):  # fmt: skip
        yield Sending(f"a length {name}", with_length(length), whole=False)
    yield Sending("a length too small", with_length(b"%d" % max(size - 9, 0)))
    yield Sending("no length", head + b"\r\n" + body)
    for name, other in (("two lengths", size + 1), ("a length twice", size)):
        first = b"Content-Length: %d\r\n" % other
        yield Sending(name, (head + first) + with_length(b"%d" % size).removeprefix(head))


def _chunks(head: bytes, body: bytes) -> Iterator[Sending]:
    size = len(body)
    chunk = b"%x\r\n" % size + body + b"\r\n"
    both = head + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n" % size
    yield Sending("a length and chunks", both + chunk + b"0\r\n\r\n")
    yield Sending("a length and no chunks", both + body, whole=False)
    yield Sending("a smuggled request", both + b"0\r\n\r\n" + request("GET", f"/{FORGED}"))
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    end = b"0\r\n\r\n"
    for name, rest in (
        ("whole", chunk + end),
        ("with an extension", b"%x;a=b\r\n" % size + body + b"\r\n" + end),
        ("with a trailer", chunk + b"0\r\nIdempotency-Key: " + FORGED.encode() + b"\r\n\r\n"),
        ("of a byte", b"".join(b"1\r\n%c\r\n" % byte for byte in body) + end),
        ("with a size of zeros", b"0" * 9000 + chunk + end),
        ("with a long extension", b"%x;" % size + b"a" * 70_000 + b"\r\n" + body + b"\r\n" + end),
    ):
        yield Sending(f"chunks {name}", chunked + rest)
    for name, rest in (
        ("without an end", chunk),
        ("of no size", b"zz\r\n" + body),
        ("of a negative size", b"-1\r\n" + body),
        ("of 2**64", b"10000000000000000\r\n" + body),
        ("of bare LF", b"%x\n" % size + body + b"\n0\n\n"),
        ("too short", b"%x\r\n" % (size + 5) + body + b"\r\n" + end),
        ("too long", b"1\r\n" + body + b"\r\n" + end),
        ("with endless trailers", chunk + b"0\r\n" + b"a: b\r\n" * 9000),
    ):
        yield Sending(f"chunks {name}", chunked + rest, whole=False)
    for coding in (
        b"gzip", b"identity", b"chunked, chunked", b"gzip, chunked", b"xchunked", b"\x0bchunked",
        b"CHUNKED",
    ):  # fmt: skip
        rest = head + b"Transfer-Encoding: " + coding + b"\r\n\r\n" + chunk + end
        yield Sending(f"a transfer coding {coding!r}", rest, whole=False)
    spaced = head + b"Transfer-Encoding : chunked\r\n\r\n" + chunk + end
    yield Sending("a blank before a colon", spaced, whole=False)


def _versions(good: bytes) -> Iterator[Sending]:
    """Yield other methods and versions, and what is not HTTP at all."""
    for method in (
        b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH", b"post", b"P\xffST",
        b"PROPFIND", b"X" * 300,
    ):  # fmt: skip
        odd = good.replace(b"POST", method, 1)
        yield Sending(f"the method {method[:20]!r}", odd, whole=False)
    for version in (
        b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9.9", b"http/1.1", b"HTTP/1.1 ",
        b"HTTPS/1.1", b"HTTP/1.", b"",
    ):  # fmt: skip
        odd = good.replace(b"HTTP/1.1", version, 1)
        yield Sending(f"the version {version!r}", odd, whole=False)
    yield Sending("blank lines before", b"\r\n" * 30 + good)
    for name, raw in (
        ("bare line feeds", good.replace(b"\r\n", b"\n")),
        ("zero bytes before", bytes(30) + good),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)),
        ("SSH", b"SSH-2.0-x\r\n"),
        ("Redis", b"*1\r\n$4\r\nPING\r\n"),
        ("nothing", b""),
        ("a blank line", b"\r\n\r\n"),
        ("an endless line", b"A" * 100_000),
        ("an endless address", b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n"),
    ):
        yield Sending(name, raw, whole=False)


_UPGRADE = b"Connection: upgrade\r\nUpgrade: "
_HEADERS: tuple[tuple[str, bytes], ...] = (
    ("a folded header", b"X-Request-ID: a\r\n b"),
    ("a header without a colon", b"x" * 20),
    ("a header without a name", b": a"),
    ("a name with a blank", b"X Y: a"),
    ("a name that is no text", b"\xff: a"),
    ("a value that is no text", b"X-Request-ID: \xff\xfe"),
    ("a zero byte", b"X-Request-ID: a\x00b"),
    ("a bare CR", b"X-Request-ID: a\r" + FORGED.encode()),
    ("a bare LF", b"X-Request-ID: a\n" + FORGED.encode()),
    ("escapes", b"X-Request-ID: \x1b[2J" + FORGED.encode()),
    ("a line separator", "X-Request-ID: \u2028".encode() + FORGED.encode()),
    ("right to left", "Idempotency-Key: \N{RIGHT-TO-LEFT OVERRIDE}yek".encode()),
    ("an empty key", b"Idempotency-Key:"),
    ("a long key", b"Idempotency-Key: " + b"k" * 200),
    ("two keys", b"Idempotency-Key: a\r\nIdempotency-Key: b"),
    ("a dry run that is none", b"X-Dry-Run: perhaps"),
    ("a long header", b"X: " + b"x" * 7 * _KIB),
    ("a header that is too long", b"X: " + b"x" * 70 * _KIB),
    ("2,000 headers", b"\r\n".join(b"X-%d: y" % n for n in range(2000))),
    ("a header 500 times", b"\r\n".join([b"X-Request-ID: y"] * 500)),
    ("an expectation", b"Expect: 100-continue"),
    ("another expectation", b"Expect: the worst"),
    ("HTTP/2 by upgrade", _UPGRADE + b"h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__"),
    ("a web socket", _UPGRADE + b"websocket\r\nSec-WebSocket-Key: eA=="),
    ("another host", b"Host: evil.invalid"),
    ("a forwarded address", b"X-Forwarded-For: ' OR 1=1\r\nForwarded: for=_x"),
    ("a range", b"Range: bytes=0-0,0-0,0-0"),
    ("an origin", b"Origin: null\r\nAccess-Control-Request-Method: PUT"),
    ("TorchServe's own", b"ts_request_sequence_id: x\r\nts_stream_next: true"),
    ("two media types", b'Content-Type: \xff/;;="\r\nContent-Type: a/b; charset=rot13'),
    ("encodings", b"Content-Encoding: gzip, br, zstd, deflate"),
    ("a form", b"Content-Type: application/x-www-form-urlencoded"),
    ("parts", b"Content-Type: multipart/form-data; boundary=" + b"b" * 300),
    ("parts without a boundary", b"Content-Type: multipart/form-data"),
    ("a cookie", b"Cookie: " + b"a=b; " * 1000),
    ("authorization", b"Authorization: Bearer \xf0\x9f\x98\x80"),
)


def addresses(random: Random, texts: tuple[str, ...], queries: Iterator[bytes]) -> Iterator[bytes]:
    """Yield paths without end, as they stand in a request line: hostile, but of visible ASCII."""
    templates = (
        "/users/{}/median", "/users/{}/stats", "/users/{}/scores", "/{}", "/predictions/{}",
        "/predictions/scorer/{}", "/explanations/{}", "/models/{}", "/docs/{}", "/docs/static/{}",
        "/metrics/{}", "/users/{}", "//{}", "/./{}/../users/a/median", "/wfpredict/{}",
        "/workflows/{}", "http://a/{}",
    )  # fmt: skip
    while True:
        text = random.choice(texts)
        form = random.choice((_all_quoted, _twice_quoted, _plain))
        path = random.choice(templates).format(form(text))
        query = b"?" + next(queries) if random.random() < 0.5 else b""
        yield path.encode("ascii") + query


def _all_quoted(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "surrogatepass")[:300])


def _twice_quoted(text: str) -> str:
    return _all_quoted(text).replace("%", "%25")[:900]


def _plain(text: str) -> str:
    return "".join(c for c in text[:300] if "!" <= c <= "~" and c not in '"<>^`{|}')
