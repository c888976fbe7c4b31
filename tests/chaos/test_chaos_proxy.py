"""The proxy does to a real connection what it says."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from chaos.proxy import Proxy, Trouble

QUESTION, ANSWER = b"question--", b"--the-answer"
PATIENCE_SECONDS = 0.3  # with what never comes


@dataclass
class Server:
    """Answers each question it has got whole, and keeps what it has got."""

    received: bytearray = field(default_factory=bytearray)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        whole = 0
        with contextlib.suppress(OSError):
            while piece := await reader.read(1 << 16):
                self.received += piece
                whole += len(piece)
                while whole >= len(QUESTION):
                    whole -= len(QUESTION)
                    writer.write(ANSWER)
        writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    found = Server()
    async with await asyncio.start_server(found.serve, "127.0.0.1", 0) as listening:
        found.port = listening.sockets[0].getsockname()[1]
        yield found


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    async with Proxy(0, server.port) as running:
        yield running


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def ask(streams: Streams) -> bytes:
    streams[1].write(QUESTION)
    return await streams[0].readexactly(len(ANSWER))


async def test_in_peace_it_passes_on_what_it_gets(proxy: Proxy) -> None:
    async with connected(proxy) as streams:
        assert await ask(streams) == ANSWER
        assert await ask(streams) == ANSWER
    assert proxy.connections == 1


async def test_cut_it_resets_what_is_open_and_refuses_what_is_new(proxy: Proxy) -> None:
    async with connected(proxy) as streams:
        assert await ask(streams) == ANSWER
        await proxy.set(Trouble("cut"))
        with pytest.raises(ConnectionResetError):
            await streams[0].read(1)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", proxy.port)
    await proxy.heal()
    async with connected(proxy) as streams:
        assert await ask(streams) == ANSWER


async def test_a_reset_in_the_request_keeps_its_end_from_the_server(
    proxy: Proxy, server: Server
) -> None:
    async with connected(proxy) as streams:
        await proxy.set(Trouble("reset-request", 0.5))
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await ask(streams)
    assert len(server.received) <= len(QUESTION) // 2


async def test_a_reset_in_the_answer_comes_after_the_server_has_got_it_all(
    proxy: Proxy, server: Server
) -> None:
    async with connected(proxy) as streams:
        await proxy.set(Trouble("reset-answer", 0.5))
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await ask(streams)
    assert server.received == QUESTION


@pytest.mark.parametrize(
    ("kind", "arrives"), [("swallow-request", b""), ("swallow-answer", QUESTION)]
)
async def test_what_is_swallowed_leaves_silence_and_a_reset_when_it_heals(
    proxy: Proxy, server: Server, kind: str, arrives: bytes
) -> None:
    async with connected(proxy) as streams:
        assert await ask(streams) == ANSWER
        server.received.clear()
        await proxy.set(Trouble(kind))  # type: ignore[arg-type]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(streams), PATIENCE_SECONDS)
        assert server.received == arrives
        await proxy.heal()
        with pytest.raises(ConnectionResetError):
            await streams[0].read(1)
    async with connected(proxy) as streams:
        assert await ask(streams) == ANSWER


async def test_a_connection_that_lost_nothing_outlives_the_trouble(proxy: Proxy) -> None:
    async with connected(proxy) as streams:
        assert await ask(streams) == ANSWER
        await proxy.set(Trouble("swallow-answer"))
        await proxy.heal()
        assert await ask(streams) == ANSWER


async def test_a_delay_is_waited_in_both_directions(proxy: Proxy) -> None:
    await proxy.set(Trouble("delay", 0.1))
    async with connected(proxy) as streams:
        began = time.monotonic()
        assert await ask(streams) == ANSWER
        assert time.monotonic() - began >= 0.2


async def test_a_throttled_connection_is_as_slow_as_asked_until_it_heals(
    proxy: Proxy, server: Server
) -> None:
    await proxy.set(Trouble("throttle", 100.0))  # bytes/s
    async with connected(proxy) as streams:
        streams[1].write(QUESTION * 100)
        await asyncio.sleep(PATIENCE_SECONDS)
        assert 0 < len(server.received) < len(QUESTION) * 50
        await proxy.heal()
        answers = await streams[0].readexactly(len(ANSWER) * 100)
    assert answers == ANSWER * 100


async def test_with_nobody_behind_it_a_connection_is_reset() -> None:
    async with await asyncio.start_server(Server().serve, "127.0.0.1", 0) as taken:
        port = taken.sockets[0].getsockname()[1]
    async with Proxy(0, port) as proxy, connected(proxy) as streams:
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await ask(streams)


async def test_when_the_server_hangs_up_so_does_the_proxy() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Proxy(0, port) as proxy, connected(proxy) as streams:
            assert await streams[0].read() == b""
