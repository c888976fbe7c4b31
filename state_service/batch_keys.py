"""Counted once: the batch keys seen lately and what their batches counted. Pure."""

import heapq
import struct
from collections.abc import Iterable
from typing import NamedTuple

from state_service.errors import CapacityError

MOST_MOVED = 2_000  # keys a call: more would be felt on the event loop

_PACKED = struct.Struct("<dqqq")  # seen at, accepted, late, future


class BatchCounts(NamedTuple):
    """What became of one batch's events."""

    accepted: int
    late: int
    future: int


class SeenKey(NamedTuple):
    """One remembered batch: its key, when it was seen (in the windows' time), its counts."""

    key: str
    seen_at: float
    counts: BatchCounts


class BatchKeys:
    """Keys by time of arrival, forgotten after `retention_seconds`.

    `now` is the windows' time throughout: under the event clock it stands still while no newer
    events come, and so must the keys, or a repeat of events that still count would count again.

    Insertion order is arrival order, so expiry only looks at the front: O(1) amortised a key. A key
    at the front that was seen later than now, by a clock that has been set back since, would keep
    all behind it; it is moved to `_ahead`, whose keys are forgotten by time, whatever their order.
    A clock set back may put millions there: a call moves a bounded number into and out of it, and
    the rest lives until the next calls.

    What is remembered of a key is packed into bytes: a garbage collection passes over a dict of
    these without looking at each of millions.
    """

    def __init__(self, retention_seconds: float, max_keys: int) -> None:
        self._retention_seconds = retention_seconds
        self._max_keys = max_keys
        self._seen: dict[str, bytes] = {}
        self._ahead: dict[str, bytes] = {}
        self._ahead_by_time: list[tuple[float, str]] = []  # a heap of the same
        self._unsaved: list[SeenKey] = []

    def __len__(self) -> int:
        return len(self._seen) + len(self._ahead)

    def find(self, key: str) -> BatchCounts | None:
        """Return the counts of a batch seen before, None for a new one."""
        packed = self._seen.get(key) or self._ahead.get(key)
        return BatchCounts(*_PACKED.unpack(packed)[1:]) if packed else None

    def check_room(self, new_keys: int) -> None:
        """Raise `CapacityError` when so many more would not fit."""
        if len(self) + new_keys > self._max_keys:
            raise CapacityError(
                f"{self._max_keys} batch keys are remembered: the limit (max_batch_keys); "
                "send more events a request",
                limit="max_batch_keys",
            )

    def add(self, key: str, seen_at: float, counts: BatchCounts) -> None:
        """Remember a batch that has just been applied."""
        self._seen[key] = _PACKED.pack(seen_at, *counts)
        self._unsaved.append(SeenKey(key, seen_at, counts))

    def expire(self, now: float) -> None:
        """Forget the keys that are older than the retention."""
        horizon = self.horizon(now)
        self._expire_ahead(horizon)
        passed, moved = [], 0
        for key, packed in self._seen.items():
            seen_at = _PACKED.unpack(packed)[0]
            if horizon <= seen_at <= now or moved == MOST_MOVED:
                break
            passed.append(key)
            if seen_at > now:
                moved += 1
                self._ahead[key] = packed
                heapq.heappush(self._ahead_by_time, (seen_at, key))
        for key in passed:
            del self._seen[key]

    def _expire_ahead(self, horizon: float) -> None:
        by_time = self._ahead_by_time
        for _ in range(MOST_MOVED):
            if not by_time or by_time[0][0] >= horizon:
                return
            _, key = heapq.heappop(by_time)
            self._ahead.pop(key, None)  # None: a key restored twice is there once

    def horizon(self, now: float) -> float:
        """Return the time before which a key is forgotten."""
        return now - self._retention_seconds

    def restore(self, seen_keys: Iterable[SeenKey]) -> None:
        """Take back keys from a snapshot, oldest first."""
        for key, seen_at, counts in seen_keys:
            self._seen[key] = _PACKED.pack(seen_at, *counts)

    def take_unsaved(self) -> list[SeenKey]:
        """Hand over the keys added since the last call, for a snapshot."""
        taken, self._unsaved = self._unsaved, []
        return taken

    def put_back(self, seen_keys: list[SeenKey]) -> None:
        """Return keys that could not be saved, for the next snapshot; forgotten ones need none."""
        self._unsaved = [seen for seen in seen_keys + self._unsaved if self.find(seen.key)]
