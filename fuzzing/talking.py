"""Bytes to a server and what comes back, whatever that is: one answer, several, none."""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Self

import httptools

from fuzzing.framing import Sending

_PATIENCE_SECONDS = 40.0  # above TorchServe's own time-out of a request
_QUIET_SECONDS = 0.3  # after an answer: time for another one
_KEPT_BYTES = 4096


@dataclass(slots=True)
class Answer:
    """One HTTP answer; of its body the beginning."""

    status: int = 0
    content_type: str = ""
    body: bytes = b""
    length: int = 0


@dataclass(slots=True)
class Outcome:
    """What became of a sending: its answers, whether the server hung up, whether it kept silent."""

    answers: list[Answer] = field(default_factory=list)
    closed: bool = False
    seconds: float = 0.0

    @property
    def silent(self) -> bool:
        """Whether nothing at all came back, not even the end."""
        return not (self.answers or self.closed)


class _Reader:
    """Parses answers as they come; httptools calls its methods."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self._now = Answer()
        self.parser = httptools.HttpResponseParser(self)
        self.keep_alive = True

    def on_message_begin(self) -> None:
        self._now = Answer()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self._now.content_type = value.decode("latin-1").partition(";")[0]

    def on_body(self, part: bytes) -> None:
        self._now.length += len(part)
        self._now.body = (self._now.body + part)[:_KEPT_BYTES]

    def on_message_complete(self) -> None:
        self._now.status = self.parser.get_status_code()
        self.keep_alive = self.parser.should_keep_alive()
        if self._now.status >= 200:
            self.answers.append(self._now)


class Talker:
    """Sends to one server, ordinary requests on a connection that is kept."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._kept: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._drop()

    async def send(self, sending: Sending) -> Outcome:
        """Send, and wait for an answer or for the end of the connection."""
        started = time.monotonic()
        outcome = await (self._ordinary(sending) if sending.ordinary else self._odd(sending))
        outcome.seconds = time.monotonic() - started
        return outcome

    async def _ordinary(self, sending: Sending) -> Outcome:
        fresh = self._kept is None
        outcome = await self._on(sending, fresh=fresh)
        if outcome.closed and not outcome.answers and not fresh:
            outcome = await self._on(sending, fresh=True)  # it was closed while idle
        return outcome

    async def _on(self, sending: Sending, *, fresh: bool) -> Outcome:
        if self._kept is None or fresh:
            self._drop()
            self._kept = await asyncio.open_connection(*self._address)
        stream, writer = self._kept
        parser = _Reader()
        closed = await _exchange(stream, writer, sending, parser, once=True)
        if closed or not parser.answers or not parser.keep_alive:
            self._drop()
        return Outcome(parser.answers, closed)

    async def _odd(self, sending: Sending) -> Outcome:
        stream, writer = await asyncio.open_connection(*self._address)
        parser = _Reader()
        try:
            closed = await _exchange(stream, writer, sending, parser, once=False)
        finally:
            writer.close()
        return Outcome(parser.answers, closed)

    def _drop(self) -> None:
        if self._kept is not None:
            self._kept[1].close()
            self._kept = None


async def _exchange(
    stream: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    sending: Sending,
    parser: _Reader,
    *,
    once: bool,
) -> bool:
    """Write while reading. Returns whether the server hung up."""

    async def write() -> None:
        with contextlib.suppress(OSError):
            writer.write(sending.raw)
            await writer.drain()
            if not sending.whole:
                writer.write_eof()

    writing = asyncio.create_task(write())
    try:
        while not (once and parser.answers):
            patience = _QUIET_SECONDS if parser.answers else _PATIENCE_SECONDS
            try:
                received = await asyncio.wait_for(stream.read(1 << 16), patience)
            except TimeoutError:
                return False
            except OSError:
                return True
            if not received:
                return True
            with contextlib.suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
                parser.parser.feed_data(received)
        return False
    finally:
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing
