"""A TCP proxy that can be told to misbehave; otherwise it passes on what it gets.

It stands between the handler and the state service. Each direction reads what has come and treats
that piece as the trouble of the moment says. A reset is a real one (RST), so the other side loses
what it had not read. Bytes once swallowed leave a connection that can never work again: it is
reset when the trouble ends.
"""

import asyncio
import contextlib
import socket
import struct
from typing import Literal, NamedTuple, Self

_PIECE_BYTES = 1 << 16
_THROTTLE_STEP_SECONDS = 0.05
_LISTEN_TRIES, _LISTEN_PAUSE_SECONDS = 50, 0.1
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, for 0 seconds

TroubleKind = Literal[
    "cut", "delay", "throttle", "reset-request", "reset-answer", "swallow-request", "swallow-answer"
]


class Trouble(NamedTuple):
    """What is wrong with the connection.

    `amount` is in seconds for `delay` (each way), in bytes/s for `throttle` (each way and
    connection), and for the resets the share, 0 to 1, of a piece that still passes.
    """

    kind: TroubleKind
    amount: float = 0.0


class _Pair:
    """A client's connection and the one made for it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._writers = (client, server)
        self.spoiled = False  # bytes have gone missing

    def reset(self) -> None:
        for writer in self._writers:
            _reset(writer)

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class Proxy:
    """Listens inside an `async with` block; `set` makes trouble, `heal` ends it."""

    def __init__(self, port: int, server_port: int, host: str = "127.0.0.1") -> None:
        """Listen on `port`, or a free one for 0, which `port` then names."""
        self.port = port
        self.connections = 0
        self._host, self._server_port = host, server_port
        self._trouble: Trouble | None = None
        self._healed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._pairs: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._deafen()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self._host}:{self.port}"

    async def set(self, trouble: Trouble) -> None:
        """Make trouble from now on, on all connections."""
        await self.heal()
        self._trouble = trouble
        self._healed.clear()
        if trouble.kind == "cut":
            self._deafen()
            self._reset(list(self._pairs))

    async def heal(self) -> None:
        """Pass on everything again; connections that have lost bytes are reset."""
        self._trouble = None
        self._healed.set()
        self._reset([pair for pair in self._pairs if pair.spoiled])
        await self._listen()

    async def _listen(self) -> None:
        for tries_left in reversed(range(_LISTEN_TRIES)):
            if self._server is not None:
                return
            try:
                self._server = await asyncio.start_server(self._accept, self._host, self.port)
            except OSError:
                if not tries_left:
                    raise
                await asyncio.sleep(_LISTEN_PAUSE_SECONDS)
            else:
                self.port = self._server.sockets[0].getsockname()[1]

    def _deafen(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    @staticmethod
    def _reset(pairs: list[_Pair]) -> None:
        for pair in pairs:
            pair.reset()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            connected = await asyncio.open_connection(self._host, self._server_port)
        except OSError:  # nobody is there: all that can be done after having accepted
            _reset(writer)
            return
        pair = _Pair(writer, connected[1])
        self._pairs.add(pair)
        pumps = [
            asyncio.create_task(self._pump(pair, reader, connected[1], "request")),
            asyncio.create_task(self._pump(pair, connected[0], writer, "answer")),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._pairs.discard(pair)
            await pair.close()

    async def _pump(
        self,
        pair: _Pair,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        what: Literal["request", "answer"],
    ) -> None:
        """Pass one direction on until it ends or is reset."""
        with contextlib.suppress(OSError):
            while piece := await reader.read(_PIECE_BYTES):
                trouble = self._trouble
                if trouble is not None and trouble.kind == f"swallow-{what}":
                    pair.spoiled = True
                elif trouble is not None and trouble.kind == f"reset-{what}":
                    writer.write(piece[: int(len(piece) * trouble.amount)])
                    await asyncio.sleep(0)  # what could be sent at once has been
                    pair.reset()
                    return
                else:
                    await self._pass(writer, piece)

    async def _pass(self, writer: asyncio.StreamWriter, piece: bytes) -> None:
        """Pass a piece on, as late and as slowly as the trouble of the moment says."""
        if self._trouble is not None and self._trouble.kind == "delay":
            await self._wait(self._trouble.amount)
        while (
            piece and (trouble := self._trouble) is not None and trouble.kind == "throttle"
        ):  # until it is healed
            size = max(1, int(trouble.amount * _THROTTLE_STEP_SECONDS))
            writer.write(piece[:size])
            piece = piece[size:]
            await writer.drain()
            await self._wait(_THROTTLE_STEP_SECONDS)
        writer.write(piece)
        await writer.drain()

    async def _wait(self, seconds: float) -> None:
        """Wait so long, or until the trouble is over."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._healed.wait(), seconds)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close at once, with a reset."""
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
