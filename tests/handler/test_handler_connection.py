"""The kept-alive connection tells what surely had no effect from what perhaps had one."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from handler import connection as connection_module
from handler.connection import Connection, ConnectionBroken, ConnectionRefused, Reply

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TYPE = "application/msgpack"


class Served:
    """A server that reads requests of 3 bytes and answers each as the script says."""

    def __init__(self, *script: bytes) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.heads: list[bytes] = []
        self.connections = 0
        self._script = list(script)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while self._script:
            try:
                accepted, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            with accepted:
                while self._script:
                    received = b""
                    with suppress(ConnectionResetError):
                        while not received.endswith(b"abc") and (chunk := accepted.recv(4096)):
                            received += chunk
                    if not received:
                        break
                    self.heads.append(received)
                    answer = self._script.pop(0)
                    with suppress(OSError):
                        accepted.sendall(answer)
                    if not answer or b"close" in answer:
                        break

    def close(self) -> None:
        with suppress(OSError):  # closed before
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join(5)


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    with ExitStack() as stack:

        def start(*script: bytes) -> Served:
            served = Served(*script)
            stack.callback(served.close)
            return served

        yield start


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    connection = Connection(url)
    try:
        yield connection
    finally:
        connection.close()


def test_one_connection_carries_request_after_request(serve: Callable[..., Served]) -> None:
    served = serve(OK, OK, OK)
    with connected(served.url) as connection:
        for _ in range(3):
            assert connection.post("/scores", b"abc", TYPE, 5.0) == Reply(200, b"ok")
    assert served.connections == 1
    host = served.url.removeprefix("http://").encode()
    assert served.heads[0] == (
        b"POST /scores HTTP/1.1\r\nHost: " + host + b"\r\nContent-Type: application/msgpack\r\n"
        b"Content-Length: 3\r\n\r\nabc"
    )


def test_a_path_in_the_address_comes_before_the_request_s_own(serve: Callable[..., Served]) -> None:
    served = serve(OK)
    with connected(served.url + "/behind/a/proxy/") as connection:
        connection.post("/scores", b"abc", TYPE, 5.0)
    assert served.heads[0].startswith(b"POST /behind/a/proxy/scores HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    ],
)
def test_an_answer_in_pieces_is_put_together(serve: Callable[..., Served], answer: bytes) -> None:
    with connected(serve(answer).url) as connection:
        assert connection.post("/", b"abc", TYPE, 5.0) == Reply(200, b"ok")


def test_an_answer_that_closes_is_followed_by_a_new_connection(
    serve: Callable[..., Served],
) -> None:
    served = serve(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), OK)
    with connected(served.url) as connection:
        assert connection.post("/", b"abc", TYPE, 5.0).body == b"ok"
        assert connection.post("/", b"abc", TYPE, 5.0).body == b"ok"
    assert served.connections == 2


def test_a_server_that_has_hung_up_meanwhile_is_connected_to_anew(
    serve: Callable[..., Served],
) -> None:
    first = serve(OK)
    with connected(first.url) as connection:
        assert connection.post("/", b"abc", TYPE, 5.0).status == 200
        first.close()
        with pytest.raises(ConnectionRefused):
            connection.post("/", b"abc", TYPE, 5.0)


def test_a_connection_long_unused_is_not_trusted(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve(OK, OK)
    monkeypatch.setattr(connection_module, "_MAX_IDLE_SECONDS", 0.0)
    with connected(served.url) as connection:
        connection.post("/", b"abc", TYPE, 5.0)
        connection.post("/", b"abc", TYPE, 5.0)
    assert served.connections == 2


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nclose", b"SMTP ready\r\n\r\n close"])
def test_half_an_answer_or_another_protocol_leaves_a_doubt(
    serve: Callable[..., Served], answer: bytes
) -> None:
    with connected(serve(answer).url) as connection, pytest.raises(ConnectionBroken):
        connection.post("/", b"abc", TYPE, 5.0)


def test_after_a_failure_the_next_request_starts_clean(serve: Callable[..., Served]) -> None:
    served = serve(b"", OK)
    with connected(served.url) as connection:
        with pytest.raises(ConnectionBroken):
            connection.post("/", b"abc", TYPE, 5.0)
        assert connection.post("/", b"abc", TYPE, 5.0) == Reply(200, b"ok")


def test_silence_ends_with_the_time_allowed(serve: Callable[..., Served]) -> None:
    with (
        connected(serve(OK[:-1], OK).url) as connection,
        pytest.raises(ConnectionBroken, match="timed out"),
    ):
        connection.post("/", b"abc", TYPE, 0.2)


def test_a_large_body_that_nobody_reads_ends_with_the_time_allowed() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        connected(f"http://127.0.0.1:{listener.getsockname()[1]}") as connection,
        pytest.raises(ConnectionBroken, match="timed out"),
    ):
        connection.post("/", bytes(50_000_000), TYPE, 0.3)


def test_a_server_that_does_not_speak_tls_is_not_reached_by_https(
    serve: Callable[..., Served],
) -> None:
    served = serve(b"not TLS")
    with (
        connected(served.url.replace("http:", "https:")) as connection,
        pytest.raises(ConnectionRefused) as caught,
    ):
        connection.post("/", b"abc", TYPE, 0.5)
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("url", ["127.0.0.1:8090", "ftp://host", "http://", "http://hóst:1"])
def test_what_is_no_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="not an http"):
        Connection(url)


def test_what_is_to_be_done_meanwhile_is_done_before_the_answer_is_read(
    serve: Callable[..., Served],
) -> None:
    seen: list[str] = []
    with connected(serve(OK).url) as connection:
        connection.post("/", b"abc", TYPE, 5.0, lambda: seen.append("meanwhile"))
    assert seen == ["meanwhile"]


def test_a_fault_meanwhile_leaves_no_answer_for_the_next_request(
    serve: Callable[..., Served],
) -> None:
    served = serve(OK, OK.replace(b"ok", b"no"))

    def fail() -> None:
        raise ZeroDivisionError

    with connected(served.url) as connection:
        with pytest.raises(ZeroDivisionError):
            connection.post("/", b"abc", TYPE, 5.0, fail)
        assert connection.post("/", b"abc", TYPE, 5.0).body == b"no"
    assert served.connections == 2


def test_connecting_that_takes_all_the_time_has_had_no_effect(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve(OK)
    connect = socket.create_connection

    def slowly(*arguments: Any) -> socket.socket:
        time.sleep(0.2)
        return connect(*arguments)

    monkeypatch.setattr(socket, "create_connection", slowly)
    with (
        connected(served.url) as connection,
        pytest.raises(ConnectionRefused, match="all the time"),
    ):
        connection.post("/", b"abc", TYPE, 0.1)
    assert served.heads == []


def test_a_token_goes_with_every_request(serve: Callable[..., Served]) -> None:
    served = serve(OK, OK)
    connection = Connection(served.url, "a-token")
    for _ in range(2):
        connection.post("/", b"abc", TYPE, 5.0)
    connection.close()
    assert [head.count(b"\r\nAuthorization: Bearer a-token\r\n") for head in served.heads] == [1, 1]
