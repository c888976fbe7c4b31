"""One kept-alive HTTP/1.1 connection, for POST requests to one server, one after the other.

This call is made for every batch, and what a general client does around it (pools, redirects,
encodings) costs 300 µs of the worker's time; here the request is one `sendall` and httptools parses
the answer: 40 µs. A unix socket was no faster than loopback TCP.

Two things are told apart, as the caller's promise to its own client depends on them: whether
nothing of the request can have had an effect (`ConnectionRefused`), or perhaps something had
(`ConnectionBroken`).
"""

import socket
import ssl
import time
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

import httptools

_RECEIVED_AT_ONCE = 1 << 16
# A server hangs up on idle connections; one this long unused is not worth the risk of a race.
_MAX_IDLE_SECONDS = 10.0


class ConnectionRefused(Exception):  # noqa: N818 - says what happened, not what kind of thing it is
    """The server was not reached: it has seen nothing of the request."""


class ConnectionBroken(Exception):  # noqa: N818
    """The request was sent, or part of it, and no whole answer came in time."""


class Reply(NamedTuple):
    """What the server answered."""

    status: int
    body: bytes


class _Answer:
    """Collects one answer from what is fed to `parser`, which calls the methods."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.complete = False
        self.reusable = False  # the connection, for another request
        self._chunks: list[bytes] = []

    def reply(self) -> Reply:
        return Reply(self.parser.get_status_code(), b"".join(self._chunks))

    def on_body(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        self.complete = True
        self.reusable = self.parser.should_keep_alive()  # of this answer: asked for here alone


class Connection:
    """Opens itself when it is used, and anew when the server has closed it in between."""

    def __init__(self, url: str, token: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or not url.isascii():
            raise ValueError(f"{url!r} is not an http:// or https:// address")
        tls = parts.scheme == "https"
        self._address = (parts.hostname, parts.port or (443 if tls else 80))
        self._tls = ssl.create_default_context() if tls else None
        self._path = parts.path.rstrip("/")
        self._host = parts.netloc.rpartition("@")[2]
        self._authorization = "" if token is None else f"Authorization: Bearer {token}\r\n"
        self._socket: socket.socket | None = None
        self._used_at = 0.0

    def post(
        self,
        path: str,
        body: bytes,
        content_type: str,
        timeout_seconds: float,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Reply:
        """Send one request and wait for its answer, both together at most this long.

        `meanwhile` is called once the request is on its way, in the server's time to answer.
        Raises `ConnectionRefused` or `ConnectionBroken`.
        """
        deadline = time.monotonic() + timeout_seconds
        connected = self._connected(timeout_seconds)
        if time.monotonic() >= deadline:
            self.close()
            raise ConnectionRefused("connecting took all the time there was")
        head = (
            f"POST {self._path}{path} HTTP/1.1\r\nHost: {self._host}\r\n{self._authorization}"
            f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            connected.settimeout(_left(deadline))
            connected.sendall(head.encode("ascii") + body)
            meanwhile()
            reply, reusable = _read_reply(connected, deadline)
        except (OSError, httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.close()
            raise ConnectionBroken(str(error) or type(error).__name__) from error
        except BaseException:
            self.close()  # half an answer may be in it
            raise
        self._used_at = time.monotonic()
        if not reusable:
            self.close()
        return reply

    def close(self) -> None:
        """Close the connection, if it is open."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self, timeout_seconds: float) -> socket.socket:
        if self._socket is not None and (
            time.monotonic() - self._used_at > _MAX_IDLE_SECONDS or _has_been_closed(self._socket)
        ):
            self.close()
        if self._socket is None:
            try:
                self._socket = self._connect(timeout_seconds)
            except OSError as error:
                raise ConnectionRefused(str(error) or type(error).__name__) from error
        return self._socket

    def _connect(self, timeout_seconds: float) -> socket.socket:
        plain = socket.create_connection(self._address, timeout_seconds)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is None:
                return plain
            return self._tls.wrap_socket(plain, server_hostname=self._address[0])
        except BaseException:
            plain.close()
            raise


def _read_reply(connected: socket.socket, deadline: float) -> tuple[Reply, bool]:
    """Return the answer, and whether the connection may be used again."""
    answer = _Answer()
    while not answer.complete:
        connected.settimeout(_left(deadline))
        received = connected.recv(_RECEIVED_AT_ONCE)
        if not received:
            raise ConnectionError("the connection was closed before an answer")
        answer.parser.feed_data(received)
    return answer.reply(), answer.reusable


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _has_been_closed(idle: socket.socket) -> bool:
    """Look whether the server has hung up: nothing else can make an idle connection readable."""
    idle.setblocking(False)  # noqa: FBT003 - socket's own signature
    try:
        idle.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    return True
