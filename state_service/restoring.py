"""Restart: the snapshot's segments and keys, then the journal's rows that it does not cover.

The segments come first and are not sorted again. The rows are applied in their order as they were
accepted, without being judged a second time: what is late now was not then. What has left the
window meanwhile is dropped on the way. So the answers are those from before the kill, to the last
bit.

A row that cannot be read is put aside in the database, logged and counted; the rest is served. One
that is missing among the others is logged and counted too, at each start until what it was part of
has left the window or, if of the journal, is covered by a snapshot: nothing is left to put aside.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from state_service.errors import StorageError
from state_service.formats import StoredSegment
from state_service.journal import Journal, JournalRow
from state_service.live import LiveState
from state_service.schema import UNREADABLE
from state_service.snapshot import DamagedBlock, SnapshotStore
from state_service.status import RestoreStatus
from state_service.store import Store

log = structlog.get_logger()


@dataclass(slots=True)
class Restorer:
    """Brings one process's state back, once."""

    store: Store
    snapshot: SnapshotStore
    journal: Journal
    state: LiveState
    clock: Callable[[], float]
    status: RestoreStatus = field(default_factory=RestoreStatus)

    async def restore(self, stopped: Callable[[], bool]) -> None:
        """Load everything, unless `stopped` says so on the way. Raises `StorageError`."""
        began = time.perf_counter()
        self.status.segments_total = len(self.snapshot.segment_numbers)
        self.status.journal_rows_total = self.journal.count_uncovered()
        try:
            await self._load_segments(stopped)
            self.state.windows.resume_clock(await self.snapshot.load_clock())
            await self._load_keys()
            await self._replay(stopped)
        except UNREADABLE as error:
            raise _unreadable(str(error)) from error
        if not stopped():
            self.state.expire(self.clock())
            self.status.duration_seconds = time.perf_counter() - began
            users = self.state.windows.active_users
            log.info("restored", events=self.status.events, users=users)

    async def _load_segments(self, stopped: Callable[[], bool]) -> None:
        for number in self.snapshot.segment_numbers:
            if stopped():
                return
            stored, damaged = await self.snapshot.load_segment(number)
            await self._put_aside(damaged)
            if stored is not None:
                self._take(number, stored)
            self.status.segments_done += 1

    def _take(self, number: int, stored: StoredSegment) -> None:
        try:
            self.state.windows.restore(
                number, stored.user_ids, stored.counts, stored.timestamps, stored.scores
            )
        except ValueError as error:  # its blocks are whole, but not all of them are its own
            raise _unreadable(f"segment {number}: {error}") from error
        self.status.events += len(stored.scores)

    async def _load_keys(self) -> None:
        keys, damaged = await self.snapshot.load_keys(self.state.keys_horizon(self.clock()))
        await self._put_aside(damaged)
        self.state.keys.restore(keys, self.state.windows.confirmed(self.clock()))

    async def _replay(self, stopped: Callable[[], bool]) -> None:
        async for row in self.journal.uncovered():
            if stopped():
                return
            # A journal may be longer than the window, after a night in which no snapshot succeeded.
            self.state.expire(self.clock())
            if row.group is None:
                await self._put_row_aside(row)
            else:
                self.state.apply(row.sequence, row.group)
                self.status.events += len(row.group.user_ids)
            done = self.status.journal_rows_done + 1  # those that are gone are not in the total
            self.status.journal_rows_done = min(done, self.status.journal_rows_total)
            await self.state.settle()
        self.state.sequence = self.journal.last_sequence

    async def _put_aside(self, damaged: list[DamagedBlock]) -> None:
        for block in damaged:
            self.status.damaged_blocks += 1
            if block.reason is None:
                log.error("a block is gone, the rest is served", number=block.number)
                continue
            log.error("damaged block put aside, the rest is served", **block._asdict())
            await self.store.quarantine("block", block.number)

    async def _put_row_aside(self, row: JournalRow) -> None:
        self.status.damaged_journal_rows += 1
        if row.damage is None:
            log.error("a journal row is gone, the rest is served", number=row.sequence)
            return
        log.error(
            "damaged journal row put aside, the rest is served",
            number=row.sequence,
            reason=row.damage,
        )
        await self.store.quarantine("journal", row.sequence)


def _unreadable(reason: str) -> StorageError:
    return StorageError(
        f"the database cannot be read: {reason}; move it away or name another file "
        "(setting: database)"
    )
