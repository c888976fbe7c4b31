"""Fewer and larger reads from TorchServe's front end.

TorchServe's worker asks its socket for every field by itself, two `recv` a header: 30 a request, a
fifth of a worker's time with small requests. It may not have them all at once because its protocol
does not say how long a batch is; but the front end sends nothing after a batch until it is
answered, so whatever the socket holds may be taken. Source: `ts/protocol/otf_message_handler.py`.
"""

import socket
import struct
import sys
from types import ModuleType

_READ_AHEAD_BYTES = 1 << 16
_integer = struct.Struct("!i")


class ReadAhead:
    """What one connection has received and nobody has asked for yet."""

    def __init__(self, connected: socket.socket) -> None:
        self.connected = connected
        self._buffer = bytearray(_READ_AHEAD_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0

    def read(self, length: int) -> bytearray:
        """Return exactly `length` bytes. Raises `EOFError` where the connection ends before."""
        start = self._start
        if length <= self._end - start:
            self._start = start + length
            return self._buffer[start : start + length]
        return self._read_more(length)

    def _read_more(self, length: int) -> bytearray:
        """Take what is here, receive the rest in place, and what little may follow ahead."""
        found = bytearray(length)
        have = self._end - self._start
        found[:have] = self._view[self._start : self._end]
        self._start = self._end = 0
        with memoryview(found) as rest:
            while length - have >= _READ_AHEAD_BYTES:
                have += self._receive_into(rest[have:])
        while have < length:
            self._end = self._receive_into(self._view)
            taken = min(self._end, length - have)
            found[have : have + taken] = self._view[:taken]
            have, self._start = have + taken, taken
        return found

    def _receive_into(self, space: memoryview) -> int:
        received = self.connected.recv_into(space)
        if not received:
            raise EOFError
        return received


def read_ahead(protocol: ModuleType) -> bool:
    """Let TorchServe's reader of messages read ahead; `protocol` is its module.

    Between two messages only: the front end must be waiting for an answer. Returns False, and
    leaves all as it was, where the module is not the one that this was written for.
    """
    if not all(hasattr(protocol, name) for name in ("_retrieve_buffer", "_retrieve_int")):
        return False
    ahead: ReadAhead | None = None

    def retrieve_buffer(conn: socket.socket, length: int) -> bytearray:
        nonlocal ahead
        if ahead is None or ahead.connected is not conn:
            ahead = ReadAhead(conn)
        try:
            return ahead.read(length)
        except EOFError:
            sys.exit(0)  # as TorchServe does where the front end has gone

    def retrieve_int(conn: socket.socket) -> int:
        value: int = _integer.unpack(retrieve_buffer(conn, _integer.size))[0]
        return value

    vars(protocol).update(_retrieve_buffer=retrieve_buffer, _retrieve_int=retrieve_int)
    return True
