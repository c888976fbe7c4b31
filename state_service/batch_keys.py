"""Counted once: the batch keys seen lately and what their batches counted. Pure."""

import heapq
import math
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
    all behind it; it is moved to `_ahead`, whose keys wait for the clock, whatever their order, and
    give way when there is no room for others.
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

    def make_room(self, new_keys: int) -> int:
        """Make sure that so many more fit; return how many had to be forgotten for it.

        Those ahead of the clock give way, the nearest first: a producer whose clock is wrong must
        not stop all others. Raises `CapacityError`, having forgotten none, when that is not enough.
        """
        missing = len(self) + new_keys - self._max_keys
        if missing > len(self._ahead):
            raise CapacityError(
                f"{self._max_keys} batch keys are remembered: the limit (max_batch_keys); "
                "send more events a request",
                limit="max_batch_keys",
            )
        before = len(self)
        while len(self) + new_keys > self._max_keys:
            self._ahead.pop(heapq.heappop(self._ahead_by_time)[1], None)
        return before - len(self)

    def add(self, seen: SeenKey, now: float = math.inf) -> None:
        """Remember a batch that has just been applied; `now` tells whether it is ahead."""
        self._remember(seen, now)
        self._unsaved.append(seen)

    def _remember(self, seen: SeenKey, now: float) -> None:
        packed = _PACKED.pack(seen.seen_at, *seen.counts)
        if seen.seen_at > now:
            self._ahead[seen.key] = packed
            heapq.heappush(self._ahead_by_time, (seen.seen_at, seen.key))
        else:
            self._seen[seen.key] = packed

    def expire(self, now: float) -> None:
        """Forget the keys that are older than the retention."""
        horizon = self.horizon(now)
        self._catch_up(now)
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

    def _catch_up(self, now: float) -> None:
        """Forget those ahead that are too old by now, and keep those that the clock has reached."""
        by_time = self._ahead_by_time
        for _ in range(MOST_MOVED):
            if not by_time or by_time[0][0] > now:
                return
            seen_at, key = heapq.heappop(by_time)
            packed = self._ahead.pop(key, None)  # None: a key restored twice is there once
            if packed is not None and seen_at >= self.horizon(now):
                self._seen[key] = packed

    def horizon(self, now: float) -> float:
        """Return the time before which a key is forgotten."""
        return now - self._retention_seconds

    def restore(self, seen_keys: Iterable[SeenKey], now: float = math.inf) -> None:
        """Take back keys from a snapshot, oldest first."""
        for seen in seen_keys:
            self._remember(seen, now)

    def take_unsaved(self) -> list[SeenKey]:
        """Hand over the keys added since the last call, for a snapshot."""
        taken, self._unsaved = self._unsaved, []
        return taken

    def put_back(self, seen_keys: list[SeenKey]) -> None:
        """Return keys that could not be saved, for the next snapshot; forgotten ones need none."""
        self._unsaved = [seen for seen in seen_keys + self._unsaved if self.find(seen.key)]
