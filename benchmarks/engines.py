"""The engines measured, all with one interface; each states what it answers.

`ingest` takes a batch and forgets what has left the window; `median` answers for one user.
"""

import importlib.util
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from array import array
from bisect import bisect_left
from collections import defaultdict, deque
from typing import Any, Protocol

import numpy as np

from benchmarks.workloads import WINDOW_SECONDS, Batch
from state_service.windows import WindowRules, Windows

_BATCHES_A_CHORE = 64  # how often background work is looked for, as a timer would


class Engine(Protocol):
    """What is measured."""

    def ingest(self, batch: Batch) -> None:
        """Take a batch."""

    def median(self, user_id: str, now: float) -> float | None:
        """Answer one user's median of the window that ends now."""

    def bytes_held(self) -> dict[str, int]:
        """Return what the engine itself knows of its size in bytes, by part."""

    def close(self) -> None:
        """Let go of everything."""


class Segments:
    """The window engine of this project: exact, by time."""

    def __init__(self, memtable_events: int) -> None:
        # Nothing is asked about the past, and each event must push one out, so no history.
        self.windows = Windows(
            WindowRules(WINDOW_SECONDS, history_seconds=0.0, memtable_events=memtable_events)
        )
        self._batches = 0

    def ingest(self, batch: Batch) -> None:
        """Take a batch, judged as the service does; sort and merge in this thread."""
        self.windows.ingest(batch.user_ids, batch.timestamps, batch.scores, batch.now)
        self._chores(batch.now)

    def _chores(self, now: float) -> None:
        self.windows.expire(now)
        self._batches += 1
        if self._batches % _BATCHES_A_CHORE == 0:
            while (work := self.windows.next_work()) is not None:
                self.windows.finish(work, work.run())

    def median(self, user_id: str, now: float) -> float | None:
        """Answer exactly."""
        return self.windows.median_question(user_id, now).answer().median

    def bytes_held(self) -> dict[str, int]:
        """Return the arrays, and the user ids with their dictionary."""
        return {"arrays": self.windows.array_bytes, "user ids": self.windows.user_id_bytes()}

    def close(self) -> None:
        """Nothing to let go of."""


class SegmentsBySlot(Segments):
    """The same, given integers for users: what is left when nobody looks up strings."""

    def __init__(self, memtable_events: int, user_count: int) -> None:
        super().__init__(memtable_events)
        self._store = self.windows._store  # noqa: SLF001 - below the interface, to tell its share
        self._slots = self._store.users.intern([f"user-{user}" for user in range(user_count)])

    def ingest(self, batch: Batch) -> None:
        """Take a batch, unjudged."""
        self._store.append_slots(self._slots[batch.users], batch.timestamps, batch.scores)
        self._chores(batch.now)


class DequeMedian:
    """A deque per user and `statistics.median`: exact, by time; the usual first draft."""

    def __init__(self) -> None:
        self._events: defaultdict[str, deque[tuple[float, float]]] = defaultdict(deque)

    def ingest(self, batch: Batch) -> None:
        """Append; forget what is old of the same user."""
        low = batch.now - WINDOW_SECONDS
        columns = batch.user_ids, batch.timestamps.tolist(), batch.scores.tolist()
        for user_id, timestamp, score in zip(*columns, strict=True):
            events = self._events[user_id]
            events.append((timestamp, score))
            while events[0][0] < low:
                events.popleft()

    def median(self, user_id: str, now: float) -> float | None:
        """Answer exactly."""
        events = self._events.get(user_id, ())
        scores = [score for timestamp, score in events if timestamp >= now - WINDOW_SECONDS]
        return statistics.median(scores) if scores else None

    def bytes_held(self) -> dict[str, int]:
        """Know nothing."""
        return {}

    def close(self) -> None:
        """Let go."""
        self._events.clear()


class SortedLists:
    """A SortedList per user and one queue of what expires next: exact, by time."""

    def __init__(self) -> None:
        from sortedcontainers import SortedList  # noqa: PLC0415 - only where it is installed

        self._scores: defaultdict[str, Any] = defaultdict(SortedList)
        self._queue: deque[tuple[float, str, float]] = deque()

    def ingest(self, batch: Batch) -> None:
        """Add; remove what is old of anybody."""
        columns = batch.user_ids, batch.timestamps.tolist(), batch.scores.tolist()
        for user_id, timestamp, score in zip(*columns, strict=True):
            self._scores[user_id].add(score)
            self._queue.append((timestamp, user_id, score))
        while self._queue[0][0] < batch.now - WINDOW_SECONDS:
            _, user_id, score = self._queue.popleft()
            self._scores[user_id].remove(score)

    def median(self, user_id: str, now: float) -> float | None:  # noqa: ARG002 - `ingest` evicts
        """Answer exactly, as of the newest event."""
        scores = self._scores.get(user_id)
        if not scores:
            return None
        middle = (len(scores) - 1) // 2, len(scores) // 2
        return float((scores[middle[0]] + scores[middle[1]]) / 2)

    def bytes_held(self) -> dict[str, int]:
        """Know nothing."""
        return {}

    def close(self) -> None:
        """Let go."""
        self._scores.clear()
        self._queue.clear()


class PartitionPerUser:
    """Two arrays per user, `numpy.partition` at the question: exact, by time."""

    def __init__(self) -> None:
        self._columns: defaultdict[str, tuple[array[float], array[float]]] = defaultdict(
            lambda: (array("d"), array("d"))
        )

    def ingest(self, batch: Batch) -> None:
        """Append; once a user's older half has expired, cut it off."""
        low = batch.now - WINDOW_SECONDS
        columns = batch.user_ids, batch.timestamps.tolist(), batch.scores.tolist()
        for user_id, timestamp, score in zip(*columns, strict=True):
            times, scores = self._columns[user_id]
            if times and times[len(times) // 2] < low:
                expired = bisect_left(times, low)
                del times[:expired], scores[:expired]
            times.append(timestamp)
            scores.append(score)

    def median(self, user_id: str, now: float) -> float | None:
        """Answer exactly."""
        if user_id not in self._columns:
            return None
        times, column = self._columns[user_id]
        scores = np.frombuffer(column)[bisect_left(times, now - WINDOW_SECONDS) :]
        if not len(scores):
            return None
        middle = (len(scores) - 1) // 2, len(scores) // 2
        ranked = np.partition(scores, middle)
        return float((ranked[middle[0]] + ranked[middle[1]]) / 2)

    def bytes_held(self) -> dict[str, int]:
        """Return the arrays as allocated."""
        sizes = (x.buffer_info()[1] for pair in self._columns.values() for x in pair)
        return {"arrays": 8 * sum(sizes)}

    def close(self) -> None:
        """Let go."""
        self._columns.clear()


class River:
    """river's rolling quantile: of the last n scores, not of the last seconds, so unchecked."""

    def __init__(self, window_events: int) -> None:
        from river import stats  # noqa: PLC0415 - only where it is installed

        self._stats: defaultdict[str, Any] = defaultdict(
            lambda: stats.RollingQuantile(0.5, window_size=window_events)
        )

    def ingest(self, batch: Batch) -> None:
        """Update one by one."""
        for user_id, score in zip(batch.user_ids, batch.scores.tolist(), strict=True):
            self._stats[user_id].update(score)

    def median(self, user_id: str, now: float) -> float | None:  # noqa: ARG002 - knows no time
        """Answer another question: about the last n scores."""
        known = self._stats.get(user_id)
        return None if known is None else known.get()

    def bytes_held(self) -> dict[str, int]:
        """Know nothing."""
        return {}

    def close(self) -> None:
        """Let go."""
        self._stats.clear()


class Redis:
    """Redis with two sorted sets a user and Lua, one script call a batch: exact, by time."""

    _EVICT = """
      local function evict(user, low)
        local old = redis.call('ZRANGEBYSCORE', 't:' .. user, '-inf', '(' .. low)
        for i = 1, #old, 1000 do
          redis.call('ZREM', 's:' .. user, unpack(old, i, math.min(i + 999, #old)))
          redis.call('ZREM', 't:' .. user, unpack(old, i, math.min(i + 999, #old)))
        end
      end
    """
    _INGEST = """
      local id = redis.call('INCRBY', 'id', (#ARGV - 1) / 3)
      for i = 2, #ARGV, 3 do
        local member = id .. ':' .. i
        redis.call('ZADD', 't:' .. ARGV[i], ARGV[i + 1], member)
        redis.call('ZADD', 's:' .. ARGV[i], ARGV[i + 2], member)
        evict(ARGV[i], ARGV[1])
      end
    """
    _MEDIAN = """
      evict(ARGV[1], ARGV[2])
      local n = redis.call('ZCARD', 's:' .. ARGV[1])
      if n == 0 then return {} end
      local low, high = math.floor((n - 1) / 2), math.floor(n / 2)
      return redis.call('ZRANGE', 's:' .. ARGV[1], low, high, 'WITHSCORES')
    """

    def __init__(self) -> None:
        import redis  # noqa: PLC0415 - only where it is installed

        self._folder = tempfile.TemporaryDirectory()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        options = {"--port": port, "--bind": "127.0.0.1", "--save": "", "--dir": self._folder.name}
        words = [str(word) for option in options.items() for word in option]
        self._server = subprocess.Popen(  # noqa: S603 - a program of the user's own path
            [_redis_server() or "redis-server", *words], stdout=subprocess.DEVNULL
        )
        self._client = redis.Redis(host="127.0.0.1", port=port)
        deadline = time.monotonic() + 10
        while True:
            try:
                self._client.ping()
                break
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    self.close()
                    raise
                time.sleep(0.02)
        self._empty_bytes = self._used()
        self._take = self._client.register_script(self._EVICT + self._INGEST)
        self._ask = self._client.register_script(self._EVICT + self._MEDIAN)

    def _used(self) -> int:
        return int(self._client.info("memory")["used_memory"])

    def ingest(self, batch: Batch) -> None:
        """Send a batch as one script call; it forgets what is old of the same users."""
        columns = batch.user_ids, batch.timestamps.tolist(), batch.scores.tolist()
        words = [word for event in zip(*columns, strict=True) for word in event]
        self._take(args=[batch.now - WINDOW_SECONDS, *words])

    def median(self, user_id: str, now: float) -> float | None:
        """Answer exactly, over a socket."""
        words = self._ask(args=[user_id, now - WINDOW_SECONDS])
        scores = [float(word) for word in words[1::2]]
        return (scores[0] + scores[-1]) / 2 if scores else None

    def bytes_held(self) -> dict[str, int]:
        """Return what the server says."""
        return {"server": self._used() - self._empty_bytes}

    def close(self) -> None:
        """Stop the server."""
        self._client.close()
        self._server.kill()
        self._server.wait()
        self._folder.cleanup()


def _redis_server() -> str | None:
    return shutil.which("redis-server") or shutil.which("valkey-server")


def missing(name: str) -> str | None:
    """Return what an engine lacks here and how to get it, None when it can be measured."""
    packages = {"SortedList": "sortedcontainers", "river": "river", "Redis": "redis"}
    package = packages.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        return f"needs the package {package}: make bench-setup"
    if name == "Redis" and _redis_server() is None:
        return "needs a redis-server or valkey-server on the PATH: apt-get install redis-server"
    return None
