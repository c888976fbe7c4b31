"""Who watches: streams of server-sent events, bounded in number, none of which can hold us up.

A message is made once and put into the queue of each viewer of its subject. A viewer whose queue is
full does not keep up: its connection is dropped, and a browser that is still there comes back.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from state_service.errors import UnavailableError

_MAX_WAITING = 4  # messages a viewer may be behind


class Watched(NamedTuple):
    """A user that somebody looks at; `window` in seconds, None for the configured one."""

    user_id: str
    window: float | None


Subject = Watched | None  # None: the service as a whole


@dataclass(slots=True, eq=False)
class Viewer:
    """One stream. `transport` is what its drop cuts."""

    subject: Subject
    transport: asyncio.BaseTransport | None
    messages: asyncio.Queue[bytes | None] = field(
        default_factory=lambda: asyncio.Queue(_MAX_WAITING)
    )

    def drop(self) -> None:
        """End the stream at once, whatever is still to be sent."""
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.abort()

    def end(self) -> None:
        """Let the stream end, or drop it when it is behind: a stop must not wait for it."""
        transport = self.transport
        if isinstance(transport, asyncio.WriteTransport) and transport.get_write_buffer_size():
            self.drop()
        if not self.messages.full():  # else the next write finds out
            self.messages.put_nowait(None)


class Viewers:
    """The streams that are open."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._viewers: set[Viewer] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._viewers)

    @property
    def subjects(self) -> set[Subject]:
        """What is looked at, each once."""
        return {viewer.subject for viewer in self._viewers}

    @contextlib.contextmanager
    def one_more(
        self, subject: Subject, transport: asyncio.BaseTransport | None
    ) -> Iterator[Viewer]:
        """Count a viewer in for the block; refuse it when there are too many."""
        if self._closed:
            raise UnavailableError("stopping", "stopping")
        if len(self._viewers) >= self._limit:
            raise UnavailableError(
                f"{self._limit} streams are served: the limit (max_viewers)",
                "busy",
                limit="max_viewers",
            )
        viewer = Viewer(subject, transport)
        self._viewers.add(viewer)
        try:
            yield viewer
        finally:
            self._viewers.discard(viewer)

    def publish(self, subject: Subject, message: bytes) -> None:
        """Hand a message to all who look at a subject; drop those who do not keep up."""
        for viewer in [viewer for viewer in self._viewers if viewer.subject == subject]:
            try:
                viewer.messages.put_nowait(message)
            except asyncio.QueueFull:
                self._viewers.discard(viewer)
                viewer.drop()

    def close(self) -> None:
        """End all streams, and refuse further ones."""
        self._closed = True
        for viewer in self._viewers:
            viewer.end()


def event(name: str, data: object) -> bytes:
    """Return a server-sent event; JSON has no line breaks, so its data is one line."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))
