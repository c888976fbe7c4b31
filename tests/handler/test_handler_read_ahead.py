"""Reading ahead changes how often a worker asks its socket, and nothing of what it is told."""

import socket
import struct
import threading
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ts.protocol import otf_message_handler

from handler.read_ahead import ReadAhead, read_ahead

ORIGINAL = {
    name: getattr(otf_message_handler, name) for name in ("_retrieve_buffer", "_retrieve_int")
}


def field(value: bytes) -> bytes:
    return struct.pack("!i", len(value)) + value


def message(*bodies: bytes) -> bytes:
    """Return an inference message as TorchServe's front end writes it."""
    end = struct.pack("!i", -1)
    requests = b"".join(
        field(b"request-%d" % number)
        + field(b"Content-Type")
        + field(b"application/json")
        + end
        + field(b"body")
        + field(b"application/json")
        + field(body)
        + end
        for number, body in enumerate(bodies)
    )
    return b"I" + requests + end


@pytest.fixture
def _reading_ahead() -> Iterator[None]:
    assert read_ahead(otf_message_handler)
    yield
    vars(otf_message_handler).update(ORIGINAL)


class Counting:
    """A socket that counts how often it is asked."""

    def __init__(self, connected: socket.socket) -> None:
        self._connected = connected
        self.asked = 0

    def recv_into(self, space: memoryview) -> int:
        self.asked += 1
        return self._connected.recv_into(space)

    def recv(self, length: int) -> bytes:
        self.asked += 1
        return self._connected.recv(length)


def receive(messages: list[bytes], pieces: int | None = None) -> tuple[list[Any], int]:
    """Return what TorchServe reads of messages sent in pieces, and how often it asked."""
    sender, receiver = socket.socketpair()
    counting = Counting(receiver)
    read = []
    with sender, receiver:
        for whole in messages:

            def send(whole: bytes = whole) -> None:
                for start in range(0, len(whole), pieces or len(whole)):
                    sender.sendall(whole[start : start + (pieces or len(whole))])

            thread = threading.Thread(target=send)
            thread.start()
            read.append(otf_message_handler.retrieve_msg(counting))
            thread.join()
    return read, counting.asked


BODIES = [b"", b"x", b"y" * 65_535, b"z" * 65_536, b"w" * 200_000]


@pytest.mark.usefixtures("_reading_ahead")
@pytest.mark.parametrize("pieces", [None, 1000, 65_536])
def test_messages_of_any_size_are_read_as_torchserve_reads_them(pieces: int | None) -> None:
    messages = [message(*BODIES), message(), message(b"{}", *reversed(BODIES))]
    ahead, _ = receive(messages, pieces)
    vars(otf_message_handler).update(ORIGINAL)
    plain, _ = receive(messages, pieces)
    assert ahead == plain


@pytest.mark.usefixtures("_reading_ahead")
def test_a_batch_of_small_requests_is_read_at_once() -> None:
    messages = [message(*[b"{}"] * 32)] * 3
    _, ahead = receive(messages)
    vars(otf_message_handler).update(ORIGINAL)
    _, plain = receive(messages)
    assert plain > 3 * 32 * 10
    assert ahead <= 3 * 2


@settings(deadline=None)
@given(st.lists(st.integers(0, 200_000), max_size=8), st.integers(1, 100_000))
def test_every_byte_is_given_once_and_in_order(lengths: list[int], piece: int) -> None:
    sender, receiver = socket.socketpair()
    sent = bytes(index % 251 for index in range(sum(lengths)))

    def send() -> None:
        for start in range(0, len(sent), piece):
            sender.sendall(sent[start : start + piece])

    with sender, receiver:
        thread = threading.Thread(target=send)
        thread.start()
        ahead = ReadAhead(receiver)
        received = [bytes(ahead.read(length)) for length in lengths]
        thread.join()
    assert [len(part) for part in received] == lengths
    assert b"".join(received) == sent


@pytest.mark.usefixtures("_reading_ahead")
def test_a_worker_ends_when_its_front_end_has_gone_as_torchserve_would() -> None:
    sender, receiver = socket.socketpair()
    with receiver:
        sender.sendall(message(b"{}")[:20])
        sender.close()
        with pytest.raises(SystemExit) as ended:
            otf_message_handler.retrieve_msg(receiver)
    assert ended.value.code == 0


def test_another_protocol_module_is_left_alone() -> None:
    other = SimpleNamespace(retrieve_msg=1)
    assert not read_ahead(cast("ModuleType", other))
    assert vars(other) == {"retrieve_msg": 1}
