"""Taking a snapshot of the live state while it goes on living; erasing what is not in it.

The rules
---------
1. The cut. Under the lock `changing` the memtable is closed and its run sorted, in a thread; then
   all events up to the journal's row S, and no later ones, are in the sealed segments, which never
   change. Their user ids are read out under the same lock. Reading goes on meanwhile, and so does
   the commit that is being written; its events are applied when the lock is free, a few
   milliseconds later. What sorting there was before is done first, without the lock.
2. The writing happens without any lock but that of one small transaction at a time: new segments
   in blocks, new keys, then the tiny commit that makes the snapshot valid (`snapshot.py` has the
   rules).
3. After the commit the journal's rows up to S are deleted, and blocks that are no longer named;
   then the file is made smaller.
4. To erase is to take a snapshot and then leave nothing of what was before: neither in the
   journal's pages, nor among damaged rows, nor in the write-ahead log.

Every interleaving with the recorder comes down to whether a group was applied before the cut. If
so, its row is at or below S and its events and keys are in this snapshot; if not, its row is above
S, is not covered, and will be replayed. A group that has been committed but not applied when a
kill comes is the second case.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import aiosqlite
import structlog

from state_service.batch_keys import SeenKey
from state_service.event_clock import ClockState
from state_service.formats import Record, encode_segment, record
from state_service.journal import Journal
from state_service.live import LiveState
from state_service.segment import Segment
from state_service.snapshot import SnapshotStore
from state_service.status import JournalStatus, SnapshotStatus
from state_service.store import Store

log = structlog.get_logger()


class _Cut(NamedTuple):
    """The state at one moment: what a snapshot writes."""

    sequence: int
    live: list[int]  # numbers of all segments
    new: list[tuple[Segment, list[str]]]  # those not on disk, with the user ids of their runs
    keys: list[SeenKey]  # those not on disk
    keys_horizon: float
    clock: ClockState | None


@dataclass(slots=True)
class Snapshotter:
    """Takes snapshots, one at a time."""

    state: LiveState
    database: Store
    store: SnapshotStore
    journal: Journal
    journal_status: JournalStatus
    clock: Callable[[], float]
    status: SnapshotStatus = field(default_factory=SnapshotStatus)
    _taking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def take(self) -> bool:
        """Write what is new since the last snapshot; return whether it is on disk.

        A failure is counted, reported in `status.error` and mended by the next success: nothing is
        forgotten meanwhile. What cannot be cleaned up afterwards only takes room: it is tried again
        after the next one, and `status.clean_up_error` says why.
        """
        async with self._taking:
            try:
                covered = await self._take()
            except aiosqlite.Error:
                return False
            try:
                await self._clean_up(covered)
                await self.database.shrink()
            except aiosqlite.Error as error:
                self._not_cleaned_up(str(error))
            else:
                self._cleaned_up()
            return True

    async def erase(self) -> None:
        """Take a snapshot and leave nothing on disk that is not in it or newer.

        Raises `aiosqlite.Error`: then something may still be there, and the next call erases it.
        """
        async with self._taking:
            await self._clean_up(await self._take())
            await self.journal.rewrite()
            if emptied := await self.database.empty_quarantine():
                log.warning("damaged records were erased: whose they were is not known", n=emptied)
            await self.database.fold_log()

    @property
    def running(self) -> bool:
        """Whether one is being taken."""
        return self._taking.locked()

    async def _take(self) -> int:
        """Make a new snapshot valid; return the last journal row that it covers."""
        began, now = time.perf_counter(), self.clock()
        await self.state.settle()
        cut = await self._cut(now)
        try:
            await self.store.sweep()  # what a failed one left makes room
            await self._write(cut)
        except aiosqlite.Error as error:
            self.state.keys.put_back(cut.keys)
            self._failed(str(error))
            raise
        except BaseException:
            self.state.keys.put_back(cut.keys)
            raise
        self._succeeded(now, time.perf_counter() - began)
        return cut.sequence

    async def _cut(self, now: float) -> _Cut:
        state, windows = self.state, self.state.windows
        async with state.changing:
            state.expire(now)
            segments = await state.seal()
            new = [segment for segment in segments if not self.store.is_written(segment.number)]
            # In a thread because there may be many; nobody changes them while we hold the lock.
            user_ids = [await asyncio.to_thread(windows.user_ids, segment) for segment in new]
            return _Cut(
                state.sequence,
                [segment.number for segment in segments],
                list(zip(new, user_ids, strict=True)),
                state.keys.take_unsaved(),
                state.keys_horizon(now),
                None if windows.event_clock is None else windows.event_clock.state,
            )

    async def _write(self, cut: _Cut) -> None:
        for segment, user_ids in cut.new:
            blocks = await asyncio.to_thread(_blocks, segment, user_ids)
            await self.store.write_segment(segment.number, blocks)
        keys = await self.store.write_keys(cut.keys)
        await self.store.commit(cut.live, keys, cut.keys_horizon, cut.sequence, cut.clock)

    async def _clean_up(self, covered: int) -> None:
        """Delete what the snapshot has made superfluous. Raises `aiosqlite.Error`."""
        await self.journal.cover(covered)
        await self.store.sweep()

    def _succeeded(self, at: float, duration_seconds: float) -> None:
        if self.status.error is not None:
            log.info("snapshots work again")
        self.status.error = None
        self.status.last_at = at
        self.status.last_duration_seconds = duration_seconds
        # There is room again: say so, or nobody who asks /readyz first would ever send events.
        self.journal_status.error = None

    def _failed(self, reason: str) -> None:
        if self.status.error != reason:  # once, not at every interval of a night
            log.error("snapshot failed; kept in memory, will be tried again", reason=reason)
        self.status.error = reason
        self.status.failures += 1

    def _cleaned_up(self) -> None:
        if self.status.clean_up_error is not None:
            log.info("the database is cleaned up again")
        self.status.clean_up_error = None

    def _not_cleaned_up(self, reason: str) -> None:
        if self.status.clean_up_error != reason:  # likewise once
            log.error("the database cannot be cleaned up, will be tried again", reason=reason)
        self.status.clean_up_error = reason


def _blocks(segment: Segment, user_ids: list[str]) -> list[Record]:
    return [record(payload) for payload in encode_segment(segment, user_ids)]
