"""Windows, batch keys and snapshots as one service, without HTTP.

All state is changed on the event loop's thread and between two `await`s, so a snapshot always
captures events and keys of the same moment, and a request is applied entirely or not at all.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal, NamedTuple

import aiosqlite
import numpy as np
import structlog

from state_service.batch_keys import BatchCounts, BatchKeys
from state_service.errors import StorageError, UnavailableError
from state_service.settings import Settings
from state_service.snapshot import DamagedSegmentError, SnapshotStore, encode_segment
from state_service.windows import ACCEPTED, FUTURE, LATE, WindowRules, Windows
from state_service.wire import Batch

log = structlog.get_logger()


class BatchOutcome(NamedTuple):
    """What became of one batch; a duplicate reports the counts of its first time."""

    counts: BatchCounts
    events: int
    duplicate: bool


@dataclass(slots=True)
class Counters:
    """What has happened since this process started."""

    ingest_requests: int = 0
    accepted: int = 0
    late: int = 0
    future: int = 0
    duplicates: int = 0
    skipped: int = 0
    median_requests: int = 0
    requests_refused: int = 0
    timed_requests: int = 0
    latency_seconds_total: float = 0.0

    @property
    def events_processed(self) -> int:
        """Events scored and handed in, each once; late and future ones included."""
        return self.accepted + self.late + self.future

    @property
    def avg_ingest_latency_seconds(self) -> float:
        """Mean from the handler's receipt of a request to its acceptance here."""
        return self.latency_seconds_total / self.timed_requests if self.timed_requests else 0.0


@dataclass(slots=True)
class SnapshotStatus:
    """The last snapshots: times in epoch seconds, durations in seconds."""

    last_at: float | None = None
    last_duration_seconds: float | None = None
    failures: int = 0
    error: str | None = None  # why the last one failed; None once one has succeeded


@dataclass(slots=True)
class RestoreStatus:
    """What came back at start."""

    segments_total: int = 0
    segments_done: int = 0
    events: int = 0
    damaged_segments: int = 0
    duration_seconds: float | None = None  # None until it is done


@dataclass(slots=True)
class StateService:
    """The state of one process. `run` it; at the end `stop` it, and `close` it when it has."""

    settings: Settings
    store: SnapshotStore
    clock: Callable[[], float] = time.time
    phase: Literal["restoring", "ready", "stopping"] = "restoring"
    counters: Counters = field(default_factory=Counters)
    snapshots: SnapshotStatus = field(default_factory=SnapshotStatus)
    restored: RestoreStatus = field(default_factory=RestoreStatus)
    windows: Windows = field(init=False)
    keys: BatchKeys = field(init=False)
    started_at: float = field(init=False)
    requests_in_flight: int = 0
    _snapshot_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _closing: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        settings = self.settings
        self.started_at = self.clock()
        self.windows = Windows(
            WindowRules(
                settings.window_seconds,
                settings.max_future_seconds,
                settings.history_seconds,
                settings.clock,
                settings.max_live_events,
                settings.max_active_users,
            )
        )
        # An event may lie max_future ahead: its key must live as long as it can be asked for.
        self.keys = BatchKeys(
            settings.window_seconds + settings.max_future_seconds, settings.max_batch_keys
        )

    # --- writing ------------------------------------------------------------------------------

    def record(self, batches: Sequence[Batch]) -> list[BatchOutcome]:
        """Apply new batches, recognise repeated ones; all or nothing.

        Raises `CapacityError` before anything has changed.
        """
        now = self.clock()
        self.windows.expire(now)  # first make the room that there is
        self.keys.expire(self.windows.reference(now))
        fresh: dict[str, Batch] = {}
        for batch in batches:
            if batch.key not in fresh and self.keys.find(batch.key) is None:
                fresh[batch.key] = batch
        self.keys.check_room(len(fresh))
        self._apply(list(fresh.values()), now)
        outcomes = []
        for batch in batches:
            counts = self.keys.find(batch.key)
            assert counts is not None
            first_time = fresh.pop(batch.key, None) is not None
            if not first_time:
                self.counters.duplicates += len(batch.user_id)
            outcomes.append(BatchOutcome(counts, len(batch.user_id), not first_time))
        return outcomes

    def _apply(self, batches: list[Batch], now: float) -> None:
        """Take all batches' events in one step, then count each batch."""
        sizes = [len(batch.user_id) for batch in batches]
        total = sum(sizes)
        verdicts = self.windows.ingest(
            list(chain.from_iterable(batch.user_id for batch in batches)),
            np.fromiter(chain.from_iterable(b.timestamp for b in batches), np.float64, total),
            np.fromiter(chain.from_iterable(b.score for b in batches), np.float64, total),
            now,
        )
        # By the windows' own time, so that a key lives as long as the events it counted.
        seen_at = self.windows.reference(now)
        counters, end = self.counters, 0
        for batch, size in zip(batches, sizes, strict=True):
            mine = np.bincount(verdicts[end : end + size], minlength=3)
            end += size
            counts = BatchCounts(int(mine[ACCEPTED]), int(mine[LATE]), int(mine[FUTURE]))
            self.keys.add(batch.key, seen_at, counts)
            log.debug("recorded", request_id=batch.request_id, traceparent=batch.traceparent)
            counters.ingest_requests += 1
            counters.accepted += counts.accepted
            counters.late += counts.late
            counters.future += counts.future
            counters.skipped += batch.skipped
            if batch.received_at is not None:
                counters.timed_requests += 1
                counters.latency_seconds_total += max(0.0, self.clock() - batch.received_at)

    # --- readiness ----------------------------------------------------------------------------

    def require_ready(self) -> None:
        """Raise `UnavailableError` unless requests can be served."""
        if self.phase == "restoring":
            done, total = self.restored.segments_done, self.restored.segments_total
            raise UnavailableError(f"restoring: {done} of {total} segments", "restoring")
        if self.phase == "stopping":
            raise UnavailableError("stopping", "stopping")

    @contextlib.contextmanager
    def one_more_in_flight(self) -> Iterator[None]:
        """Count a request whose body is being read; refuse it when there are too many."""
        limit = self.settings.max_requests_in_flight
        if self.requests_in_flight >= limit:
            raise UnavailableError(
                f"{limit} requests are in flight: the limit (max_requests_in_flight)", "busy"
            )
        self.requests_in_flight += 1
        try:
            yield
        finally:
            self.requests_in_flight -= 1

    # --- durability ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Restore, then expire and snapshot at every interval until `stop`."""
        try:
            await self.restore()
        except aiosqlite.Error as error:
            raise StorageError(
                f"the database cannot be read: {error}; move it away or name another file "
                "(setting: database)"
            ) from error
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.settings.snapshot_interval_seconds):
                    await self._closing.wait()
                    return
            await self.snapshot()

    async def restore(self) -> None:
        """Load the snapshot, then become ready."""
        began = time.perf_counter()
        numbers = self.store.stored_numbers
        self.restored.segments_total = len(numbers)
        for number in numbers:
            if self._closing.is_set():
                return
            try:
                stored = await self.store.load_segment(number)
            except DamagedSegmentError as error:
                log.error(  # noqa: TRY400 - expected, and the reason says it all
                    "damaged segment put aside, the rest is served", reason=str(error)
                )
                self.restored.damaged_segments += 1
                await self._quarantine(number)
                continue
            self.windows.restore(
                number, stored.user_ids, stored.counts, stored.timestamps, stored.scores
            )
            self.restored.segments_done += 1
            self.restored.events += len(stored.scores)
        now = self.clock()
        self.windows.expire(now)
        horizon = self.keys.horizon(self.windows.reference(now))
        self.keys.restore(await self.store.load_keys(horizon))
        if self._closing.is_set():
            return
        self.restored.duration_seconds = time.perf_counter() - began
        self.phase = "ready"
        log.info("restored", events=self.restored.events, users=self.windows.active_users)

    async def _quarantine(self, number: int) -> None:
        try:
            await self.store.quarantine(number)
        except aiosqlite.Error as error:  # a full disk must not keep the rest from being served
            log.error("it stays where it is", segment=number, reason=str(error))  # noqa: TRY400

    async def snapshot(self) -> bool:
        """Write what is new since the last snapshot; return whether it is on disk.

        A failure is counted, reported in `snapshots.error` and mended by the next success:
        nothing is forgotten meanwhile.
        """
        async with self._snapshot_lock:
            began = time.perf_counter()
            now = self.clock()
            self.windows.seal()
            self.windows.expire(now)
            self.keys.expire(self.windows.reference(now))
            keys_horizon = self.keys.horizon(self.windows.reference(now))
            segments = self.windows.segments
            stored = set(self.store.stored_numbers)
            new = [
                (segment, self.windows.user_ids(segment))
                for segment in segments
                if segment.number not in stored
            ]
            new_keys = self.keys.take_unsaved()
            try:
                payloads = await asyncio.to_thread(
                    lambda: [(segment.number, encode_segment(segment, ids)) for segment, ids in new]
                )
                live = {segment.number for segment in segments}
                await self.store.write(payloads, live, new_keys, keys_horizon)
            except aiosqlite.Error as error:
                self.keys.put_back(new_keys)
                self._snapshot_failed(str(error))
                return False
            except BaseException:
                self.keys.put_back(new_keys)
                raise
            if self.snapshots.error is not None:
                log.info("snapshots work again")
            self.snapshots.error = None
            self.snapshots.last_at = now
            self.snapshots.last_duration_seconds = time.perf_counter() - began
            return True

    def _snapshot_failed(self, reason: str) -> None:
        if self.snapshots.error != reason:  # once, not at every interval of a night
            log.error("snapshot failed; kept in memory, will be tried again", reason=reason)
        self.snapshots.error = reason
        self.snapshots.failures += 1

    def stop(self) -> None:
        """Refuse further requests and let `run` end; `close` follows when it has."""
        self.phase = "stopping"
        self._closing.set()

    async def close(self) -> None:
        """Write a last snapshot, close the file."""
        self.stop()
        restored = self.restored.duration_seconds is not None
        try:
            if restored and not await self.snapshot():
                raise StorageError(
                    f"the last snapshot failed ({self.snapshots.error}): what came after the one "
                    "before is lost"
                )
        finally:
            await self.store.close()  # its thread would keep the process alive
