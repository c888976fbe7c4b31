"""The client of the state service says what went wrong, in bounded time."""

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from handler.batches import Batch, BatchResult
from handler.identity import ModelIdentity
from handler.recording import RecordingError, StateClient, encode_batches, split_batches

BATCH = Batch("k", ["user-1"], np.array([1.0]), np.array([0.5]))
TIMEOUT_SECONDS = 0.3
GOOD = b'{"batches":[{"accepted":1,"late":0,"future":0,"duplicate":false,"more":1}]}'


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Start HTTP servers that give one prepared answer, standing in for a sick state service."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int, body: bytes, delay_seconds: float = 0.0) -> str:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(delay_seconds)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def client() -> Iterator[Callable[[str], StateClient]]:
    opened: list[StateClient] = []

    def connect(url: str) -> StateClient:
        opened.append(StateClient(url))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


def test_a_good_answer_is_a_result_a_batch(
    serve: Callable[..., str], client: Callable[[str], StateClient]
) -> None:
    assert client(serve(200, GOOD)).record([BATCH], TIMEOUT_SECONDS) == [
        BatchResult(1, 0, 0, duplicate=False)
    ]


@pytest.mark.parametrize(
    ("status", "body", "reason", "in_doubt", "one_by_one"),
    [
        (503, b'{"code":"capacity"}', "503.*capacity", False, True),
        (503, b'{"code":"restoring"}', "503.*restoring", False, False),
        (400, b'{"code":"invalid_request"}', "400", False, True),
        (413, b'{"code":"too_large"}', "413", False, True),
        # Nothing is wrong with the batches: one by one they would be refused as well.
        (401, b'{"code":"unauthorized"}', "state_token_file.*401.*unauthorized", False, False),
        (403, b'{"code":"forbidden"}', "state_token_file.*403.*forbidden", False, False),
        (421, b'{"code":"misdirected_request"}', "421.*misdirected", False, False),
        # A proxy's own words, perhaps about an answer that it has lost.
        (503, b"upstream connect error or disconnect/reset before headers", "503", True, False),
        (404, b"<html>", "404", True, False),
        (500, b'{"code":"internal_error"}', "500", True, False),
        (200, b"not json", "not understood", True, False),
        (200, b'{"batches":[{"accepted":"1"}]}', "not understood", True, False),
        (200, b'{"batches":[]}', "0 results for 1 batches", True, False),
        (302, b"", "302", True, False),
        (101, b"", "does not answer", True, False),
    ],
)
def test_any_other_answer_is_an_error_with_its_reason_and_its_doubt(
    serve: Callable[..., str],
    client: Callable[[str], StateClient],
    status: int,
    body: bytes,
    reason: str,
    in_doubt: bool,
    one_by_one: bool,
) -> None:
    with pytest.raises(RecordingError, match=reason) as caught:
        client(serve(status, body)).record([BATCH], TIMEOUT_SECONDS)
    assert caught.value.in_doubt is in_doubt
    assert (caught.value.refused or caught.value.invalid) is one_by_one


def test_a_stalled_service_is_given_up_after_the_timeout(
    serve: Callable[..., str], client: Callable[[str], StateClient]
) -> None:
    url = serve(200, GOOD, delay_seconds=1.0)
    began = time.monotonic()
    with pytest.raises(RecordingError, match="timed out") as caught:
        client(url).record([BATCH], TIMEOUT_SECONDS)
    assert time.monotonic() - began < 1.0
    assert caught.value.in_doubt


def test_nobody_there_is_an_error(client: Callable[[str], StateClient]) -> None:
    with pytest.raises(RecordingError, match="cannot be reached") as caught:
        client("http://127.0.0.1:9").record([BATCH], TIMEOUT_SECONDS)
    assert not caught.value.in_doubt


def test_without_time_left_nothing_is_sent(client: Callable[[str], StateClient]) -> None:
    with pytest.raises(RecordingError, match="no time is left") as caught:
        client("http://127.0.0.1:9").record([BATCH], -0.1)
    assert not caught.value.in_doubt


def test_the_real_service_counts_a_batch_once(
    state_url: str, client: Callable[[str], StateClient]
) -> None:
    real = client(state_url)
    first = replace(BATCH, key="a", timestamps=np.array([time.time()]))
    assert real.record([first], 5.0) == [BatchResult(1, 0, 0, duplicate=False)]
    assert real.record([first], 5.0) == [BatchResult(1, 0, 0, duplicate=True)]


def test_what_is_spooled_and_split_still_says_which_model_scored() -> None:
    model = ModelIdentity("scorer", "2.0", 3, "my.pt", "0123456789ab")
    body = encode_batches([BATCH, replace(BATCH, key="l")], model=model)
    for part in (body, *(part for part, _ in split_batches(body))):
        assert msgspec.msgpack.decode(part)["model"] == msgspec.to_builtins(model)
