"""Forgetting users: nowhere any more once it is answered, and not brought back by a replay.

The rules
---------
1. First a tombstone is committed, then the user is detached from the windows, both while no group
   of events is on its way (`recording`): what was judged before is applied and goes with the user,
   what is judged later is either a new event or, by its tombstone, left out. If the commit fails
   nothing was forgotten.
2. From the detaching on no question finds the user. Then a snapshot without the user is taken, and
   everything older is erased (`Snapshotter.erase`): only that makes it so on disk. If it fails, the
   user is gone from memory and a restart might bring back what is on disk; the next call erases it,
   whether the user is known by then or not.
3. Requests that wait are served together: what is erased is erased for all.

What belongs to a user is every score under the user's id, held or not yet expired. Batch keys are
their producers' and name no user; copies of the database are somebody else's to delete.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import aiosqlite
import structlog

from state_service.errors import NotDurableError, StorageError, UnavailableError
from state_service.live import LiveState
from state_service.schema import require_hash_key
from state_service.snapshotting import Snapshotter
from state_service.status import Counters
from state_service.store import Store
from state_service.tombstones import HASH_BYTES, Tombstones

log = structlog.get_logger()


class Forgotten(NamedTuple):
    """One user who has been forgotten: how many events, and when (epoch seconds)."""

    events: int
    forgotten_at: float


class _Request(NamedTuple):
    user_id: str
    done: asyncio.Future[Forgotten]


async def load_tombstones(store: Store, tombstones: Tombstones) -> None:
    """Take back the database's tombstones. Raises `StorageError` or what a broken file raises."""
    tombstones.hash_key = require_hash_key(await store.read("SELECT key FROM hash_key"))
    rows = await store.read("SELECT user_hash, forgotten_at FROM forgotten ORDER BY forgotten_at")
    for user_hash, forgotten_at in rows:
        if not (isinstance(user_hash, bytes) and len(user_hash) == HASH_BYTES):
            raise StorageError("the table forgotten holds what is no hash")
        if not isinstance(forgotten_at, float | int):
            raise StorageError(f"the table forgotten holds {forgotten_at!r}, not a time")
        tombstones.add([user_hash], forgotten_at)


@dataclass(slots=True)
class Forgetter:
    """Takes requests to forget users; `run` is the one that does it."""

    state: LiveState
    store: Store
    snapshotter: Snapshotter
    counters: Counters
    clock: Callable[[], float]
    _waiting: deque[_Request] = field(default_factory=deque)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _stopping: bool = False

    async def forget(self, user_id: str) -> Forgotten:
        """Return once nothing of the user is left in memory or on disk.

        Raises `NotDurableError`, which says what is left, or `UnavailableError`.
        """
        if self._stopping:
            raise UnavailableError("stopping", "stopping")
        request = _Request(user_id, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._changed.set()
        return await request.done

    async def run(self) -> None:
        """Forget whom it is told to until `stop`, and then who still waits."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while requests := list(self._waiting):
                self._waiting.clear()
                await self._serve(requests)
            if self._stopping:
                return

    def stop(self) -> None:
        """Take no more requests; `run` ends once those that wait are served."""
        self._stopping = True
        self._changed.set()

    async def _serve(self, requests: list[_Request]) -> None:
        try:
            forgotten = await self._forget({request.user_id for request in requests})
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told to those who asked
            for request in requests:
                if not request.done.done():
                    request.done.set_exception(error)
            return
        for request in requests:
            if not request.done.done():  # its client is still there
                request.done.set_result(forgotten[request.user_id])

    async def _forget(self, user_ids: set[str]) -> dict[str, Forgotten]:
        state = self.state
        hashes = [state.tombstones.hash(user_id) for user_id in user_ids]
        async with state.recording:
            now = self.clock()
            try:
                await self._commit(hashes, now)
            except aiosqlite.Error as error:
                raise NotDurableError(
                    f"nothing was forgotten: the database cannot be written: {error}"
                ) from error
            async with state.changing:
                state.tombstones.add(hashes, now)
                events = {user_id: state.windows.detach(user_id) for user_id in user_ids}
        try:
            await self.snapshotter.erase()
        except aiosqlite.Error as error:
            raise NotDurableError(
                "forgotten in memory, but not yet erased on disk, from where a restart would bring "
                f"it back: send it again: {error}"
            ) from error
        self.counters.users_forgotten += len(user_ids)
        return {user_id: Forgotten(count, now) for user_id, count in events.items()}

    async def _commit(self, hashes: list[bytes], now: float) -> None:
        tombstones = self.state.tombstones
        if evicted := tombstones.in_the_way(hashes):
            self.counters.hit("max_forgotten_users", len(evicted))
        async with self.store.transaction() as connection:
            await connection.execute_fetchall(
                "DELETE FROM forgotten WHERE forgotten_at < ?", (tombstones.horizon(now),)
            )
            await connection.executemany(
                "DELETE FROM forgotten WHERE user_hash = ?", [(one,) for one in evicted]
            )
            await connection.executemany(
                "INSERT OR REPLACE INTO forgotten VALUES (?, ?)", [(one, now) for one in hashes]
            )
