"""The database file: opened once, locked against a second service, written bit by bit.

All writing goes through one connection, whose thread does one thing after the other, and every
writer holds the lock for one small transaction. So a journal commit waits behind at most one bite
of a snapshot or of a clean-up, never behind the whole of it.
"""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import aiosqlite
import structlog

from state_service.errors import StorageError
from state_service.preparing import prepare
from state_service.schema import LOG_BYTES, UNREADABLE

log = structlog.get_logger()

Durability = Literal["journal", "full", "snapshot"]

_BUSY_TIMEOUT_MILLISECONDS = 5_000
_FOLD_TRIES, _FOLD_PAUSE_SECONDS = 50, 0.1
_SHRINK_PAGES = 64  # given back in one transaction: about 1 ms
_SHRINK_STEPS = 256  # at a time: 64 MiB
_SPARE_PAGES = 1_024  # at least: 4 MiB

READ_BY_OTHERS = "another program reads the database"

_COPY_ASIDE = {
    "block": "INSERT INTO quarantine SELECT 'block', number, crc32, payload FROM block "
    "WHERE number = ?",
    "journal": "INSERT INTO quarantine SELECT 'journal', * FROM journal WHERE sequence = ?",
}
_DELETE = {
    "block": "DELETE FROM block WHERE number = ?",
    "journal": "DELETE FROM journal WHERE sequence = ?",
}


class Store:
    """One open database. Reads are plain; writes are `write` or a `transaction`."""

    def __init__(
        self, path: Path, connection: aiosqlite.Connection, lock: contextlib.ExitStack
    ) -> None:
        self.path = path
        self._connection = connection
        self._file_lock = lock
        self._writing = asyncio.Lock()  # first come, first served
        files = (path, _log_of(path))
        self._files = {file: _identity(file) for file in files if file.exists()}
        self._not_aside: list[tuple[str, int]] = []  # damaged rows that are still where they were

    @classmethod
    async def open(cls, path: Path, durability: Durability = "journal") -> Self:
        """Open or create the database. Raises `StorageError` saying what to do.

        `full` waits for the disk at every commit, which a power loss cannot undo; the others
        leave that to the operating system, which outlives the process.
        """
        path = _followed(path)
        lock = _lock(path)
        try:
            connection = await aiosqlite.connect(path, isolation_level=None)
        except (OSError, aiosqlite.Error) as error:
            lock.close()
            raise StorageError(f"cannot open {path}: {error} (setting: database)") from error
        try:
            await prepare(connection, path, "FULL" if durability == "full" else "NORMAL")
        except (*UNREADABLE, StorageError) as error:
            await connection.close()
            lock.close()
            raise StorageError(
                f"{path} cannot be used: {error}; move it away or name another file "
                "(setting: database)"
            ) from error
        return cls(path, connection, lock)

    async def read(self, query: str, *parameters: object) -> list[Any]:
        """Return all the rows of a query."""
        return list(await self._connection.execute_fetchall(query, parameters))

    async def write(self, statement: str, *parameters: object) -> None:
        """Run one statement as a transaction of its own. Raises `aiosqlite.Error`."""
        async with self._writing:
            self._require_files()
            await self._connection.execute_fetchall(statement, parameters)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[aiosqlite.Connection]:
        """Do all of the block or nothing. Raises `aiosqlite.Error`. Keep it short."""
        async with self._writing:
            self._require_files()
            await self._connection.execute_fetchall("BEGIN IMMEDIATE")
            try:
                yield self._connection
                await self._connection.execute_fetchall("COMMIT")
            except BaseException:
                await self._connection.rollback()
                raise

    async def quarantine(self, record: Literal["block", "journal"], number: int) -> None:
        """Put a damaged row where a person can look at it, and where it is not found again."""
        try:
            async with self.transaction() as connection:
                await connection.execute_fetchall(_COPY_ASIDE[record], (number,))
                await connection.execute_fetchall(_DELETE[record], (number,))
        except aiosqlite.Error as error:  # a full disk must not keep the rest from being served
            self._not_aside.append((record, number))
            log.error(  # noqa: TRY400 - expected, and the reason says it all
                "it stays where it is", record=record, number=number, reason=str(error)
            )

    async def empty_quarantine(self) -> int:
        """Erase what damaged rows hold; return how many had not been. Raises `aiosqlite.Error`.

        That there were such rows remains told, or they would be missed at the next start.
        """
        async with self.transaction() as connection:
            found = await connection.execute_fetchall(
                "SELECT record, number, length(payload) FROM quarantine"
            )
            full: int = sum(size != 0 for *_, size in found) + len(self._not_aside)
            if full:
                rows = [*((record, number) for record, number, _ in found), *self._not_aside]
                for record, number in self._not_aside:
                    await connection.execute_fetchall(_DELETE[record], (number,))
                # All rows anew: of one that SQLite has moved, a copy may have stayed.
                await connection.execute_fetchall("DELETE FROM quarantine")
                await connection.executemany(
                    "INSERT INTO quarantine VALUES (?, ?, 0, zeroblob(0))", rows
                )
        self._not_aside.clear()
        return full

    async def fold_log(self) -> None:
        """Bring all of the write-ahead log into the file and empty it. Raises `aiosqlite.Error`.

        That cannot be while another program reads in one transaction, a backup say: it is waited
        for a few seconds, during which others may write.
        """
        for _ in range(_FOLD_TRIES):
            if await self.try_to_fold_log():
                return
            await asyncio.sleep(_FOLD_PAUSE_SECONDS)
        raise aiosqlite.OperationalError(f"{READ_BY_OTHERS}: lsof of its -wal file names it")

    async def try_to_fold_log(self) -> bool:
        """Do so now, or as much of it as others' reading allows; return whether it is empty."""
        async with self._writing:
            self._require_files()
            # Else SQLite itself would wait, and everybody with it.
            await self._connection.execute_fetchall("PRAGMA busy_timeout = 0")
            try:
                ((busy, _, _),) = await self._connection.execute_fetchall(
                    "PRAGMA wal_checkpoint(TRUNCATE)"
                )
            finally:
                await self._connection.execute_fetchall(
                    f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MILLISECONDS}"
                )
        return not busy

    async def shrink(self, spare_pages: int = _SPARE_PAGES) -> None:
        """Give pages that hold nothing back to the disk, a few at a time. Raises `aiosqlite.Error`.

        As many are kept as half of those in use, and `spare_pages` at least: what comes next finds
        its place without the file growing and shrinking at each snapshot. None goes while the log
        is too long already, for all that moves goes through it.
        """
        ((free,),) = await self.read("PRAGMA freelist_count")
        ((pages,),) = await self.read("PRAGMA page_count")
        superfluous = free - max(spare_pages, (pages - free) // 2)
        steps = min(_SHRINK_STEPS, superfluous // _SHRINK_PAGES)
        for _ in range(steps):
            if self.log_bytes() > LOG_BYTES:
                return
            async with self._writing:
                self._require_files()
                # A script, for `execute` would give back one page alone.
                await self._connection.executescript(f"PRAGMA incremental_vacuum({_SHRINK_PAGES})")
        if steps > 0:  # the file itself is cut only now; when others read, some time later
            await self.try_to_fold_log()

    async def delete(self, record: Literal["block", "journal"], numbers: Sequence[int]) -> None:
        """Delete a few rows, in one transaction."""
        async with self.transaction() as connection:
            await connection.executemany(_DELETE[record], [(number,) for number in numbers])

    def size_bytes(self) -> int:
        """Bytes on disk, write-ahead log included."""
        return _size(self.path) + self.log_bytes()

    def log_bytes(self) -> int:
        """Bytes of the write-ahead log."""
        return _size(_log_of(self.path))

    async def close(self) -> None:
        """Close the database, folding the write-ahead log in."""
        try:
            await self._connection.close()
        finally:
            self._file_lock.close()

    def _require_files(self) -> None:
        """Raise unless the names still lead to the files that were opened.

        SQLite would go on writing into a file that nobody finds any more.
        """
        for file, identity in self._files.items():
            if (now := _identity(file)) != identity:
                what = "replaced" if now else "deleted"
                raise aiosqlite.OperationalError(f"{file} has been {what}; restart the service")


def _followed(path: Path) -> Path:
    """Follow links, as SQLite does: the lock and the log must lie beside the file itself."""
    return Path(os.path.realpath(path))


def _log_of(path: Path) -> Path:
    """Return where SQLite keeps a database's write-ahead log."""
    return path.with_name(path.name + "-wal")


def _size(path: Path) -> int:
    """Return a file's size in bytes, 0 when there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from one of the same name, None when there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _lock(path: Path) -> contextlib.ExitStack:
    """Hold the file's lock until closed: two services would overwrite each other's segments.

    The lock dies with its process, so a kill leaves nothing to clean up. Locked are a file beside
    the database, which is there before it is, and the database itself: whoever deletes the one
    would let a second service in. SQLite's own locks are of another kind. The files must not be
    closed before SQLite's connection is: that would end its locks, too.
    """
    with contextlib.ExitStack() as files:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for file in (path.with_name(path.name + ".lock"), path):
                fcntl.flock(files.enter_context(file.open("ab")), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"{path} is in use by another state service: stop it or name another file "
                "(setting: database)"
            ) from error
        except OSError as error:
            raise StorageError(f"cannot open {path}: {error} (setting: database)") from error
        return files.pop_all()
