"""The spool: scored batches that the state service could not take, kept on disk until it can.

One SQLite file a host, which all of its workers share. A row is what `POST /scores` takes, encoded,
with its batches' idempotency keys: sent again it counts once, whatever became of the first attempt.
A row is on disk, and the disk told to keep it (fsync), before its requests are answered `spooled`.

Bounded in bytes by SQLite's own page limit, and in age. What is deleted is overwritten, in the
write-ahead log as well once the spool is empty, and the file shrinks again.

Source: https://sqlite.org/wal.html and https://sqlite.org/pragma.html (max_page_count,
secure_delete, auto_vacuum).
"""

import contextlib
import fcntl
import logging
import os
import sqlite3
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger(__name__)

_VERSION = 1
_BUSY_SECONDS = 1.0  # another worker's commit takes milliseconds
_WAL_BYTES = 4 << 20  # what the log is cut down to

_SCHEMA = """
PRAGMA auto_vacuum = INCREMENTAL;
BEGIN IMMEDIATE;
CREATE TABLE batch (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  spooled_at REAL NOT NULL,   -- epoch seconds
  events INTEGER NOT NULL,
  crc32 INTEGER NOT NULL,     -- of the body
  body BLOB NOT NULL,         -- a POST /scores
  refused TEXT                -- why the state service will not take it; it is not sent again
);
CREATE TABLE total (spooled INTEGER NOT NULL, replayed INTEGER NOT NULL, expired INTEGER NOT NULL);
INSERT INTO total VALUES (0, 0, 0);
PRAGMA user_version = 1;
COMMIT;
"""


class SpoolError(Exception):
    """The spool cannot be used now, or has no room: nothing has been kept."""


class SpoolSettingError(SpoolError):
    """The file cannot be a spool where it is: a person must look."""


class SpooledBody(NamedTuple):
    """One `POST /scores` that waits; `intact` unless the disk has changed it."""

    number: int
    events: int
    body: bytes
    intact: bool


class SpoolStatus(NamedTuple):
    """What waits (`batches` bodies, bytes on disk) and, in events since its making, what became."""

    batches: int
    bytes: int
    oldest_seconds: float
    refused: int
    spooled_events: int
    replayed_events: int
    expired_events: int


class Spool:
    """One connection to the host's spool; a thread has its own.

    Every method but `close` raises `SpoolError` when SQLite cannot do it; the next call tries anew,
    so a worker that starts while the disk is full has its spool when there is room.
    """

    def __init__(self, path: Path, max_bytes: int, max_age_seconds: float) -> None:
        """Open the file, made if it is not there. Raises `SpoolSettingError` where none can be."""
        self.path = path
        self._max_bytes = max_bytes
        self._max_age_seconds = max_age_seconds
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None  # of the file that is open
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _open_private(path.with_name(path.name + ".lock"))
        except OSError as error:
            raise SpoolSettingError(f"cannot open {path}: {error} (setting: spool)") from error
        try:
            _ = self._database
        except SpoolSettingError:
            os.close(self._lock)
            raise
        except SpoolError as error:
            log.error("%s; it is tried again when it is needed", error)  # noqa: TRY400

    def put(self, body: bytes, events: int) -> None:
        """Keep one body: on disk when this returns."""
        row = (time.time(), events, zlib.crc32(body), body)
        with self._transaction() as database:
            database.execute(
                "INSERT INTO batch (spooled_at, events, crc32, body) VALUES (?, ?, ?, ?)", row
            )
            database.execute("UPDATE total SET spooled = spooled + ?", (events,))

    @contextlib.contextmanager
    def draining(self) -> Iterator[bool]:
        """Be the only one on this host that replays, inside the block; False when another is.

        The lock is the process's: when it is killed, another goes on.
        """
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def waits(self) -> bool:
        """Tell whether there is a body that may be sent, without reading it."""
        with _as_spool_error():
            query = "SELECT 1 FROM batch WHERE refused IS NULL LIMIT 1"
            return self._database.execute(query).fetchone() is not None

    def next(self) -> SpooledBody | None:
        """Return the oldest body that may be sent; None when none waits."""
        with _as_spool_error():
            row = self._database.execute(
                "SELECT number, events, crc32, body FROM batch WHERE refused IS NULL "
                "ORDER BY number LIMIT 1"
            ).fetchone()
        if row is None:
            return None
        number, events, crc32, body = row
        return SpooledBody(number, events, body, zlib.crc32(body) == crc32)

    def done(self, sent: SpooledBody) -> None:
        """Delete a body that the state service has acknowledged."""
        with self._transaction() as database:
            database.execute("DELETE FROM batch WHERE number = ?", (sent.number,))
            database.execute("UPDATE total SET replayed = replayed + ?", (sent.events,))

    def split(self, sent: SpooledBody, parts: Sequence[tuple[bytes, int]]) -> None:
        """Put a body's parts, each with its number of events, in its place, as old as it is."""
        with self._transaction() as database:
            for body, events in parts:
                database.execute(
                    "INSERT INTO batch (spooled_at, events, crc32, body) "
                    "SELECT spooled_at, ?, ?, ? FROM batch WHERE number = ?",
                    (events, zlib.crc32(body), body, sent.number),
                )
            database.execute("DELETE FROM batch WHERE number = ?", (sent.number,))

    def refuse(self, sent: SpooledBody, reason: str) -> None:
        """Keep a body that cannot be sent out of the others' way, until it is too old."""
        with self._transaction() as database:
            database.execute("UPDATE batch SET refused = ? WHERE number = ?", (reason, sent.number))

    def expire(self) -> int:
        """Delete what is too old to be in any window; return how many events that were."""
        bound = (time.time() - self._max_age_seconds,)
        with _as_spool_error():
            oldest = self._database.execute(
                "SELECT spooled_at FROM batch ORDER BY number LIMIT 1"
            ).fetchone()
        if oldest is None or oldest >= bound:
            return 0
        with self._transaction() as database:
            (events,) = database.execute(
                "SELECT coalesce(sum(events), 0) FROM batch WHERE spooled_at < ?", bound
            ).fetchone()
            database.execute("DELETE FROM batch WHERE spooled_at < ?", bound)
            database.execute("UPDATE total SET expired = expired + ?", (events,))
        return int(events)

    def shrink(self) -> None:
        """Give free pages back to the disk, and leave nothing of what was deleted in the log."""
        with _as_spool_error():
            # A script, for `execute` would give back one page alone.
            self._database.executescript("PRAGMA incremental_vacuum")
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def status(self) -> SpoolStatus:
        """Return what waits, and the totals."""
        with _as_spool_error():
            batches, oldest, refused, *totals = self._database.execute(
                "SELECT count(*), min(spooled_at), count(refused), "
                "(SELECT spooled FROM total), (SELECT replayed FROM total), "
                "(SELECT expired FROM total) FROM batch"
            ).fetchone()
        oldest_seconds = 0.0 if oldest is None else max(0.0, time.time() - oldest)
        files = (self.path, self.path.with_name(self.path.name + "-wal"))
        size = sum(file.stat().st_size for file in files if file.exists())
        return SpoolStatus(batches, size, oldest_seconds, refused, *totals)

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
        os.close(self._lock)

    # --- opening ------------------------------------------------------------------------------

    @property
    def _database(self) -> sqlite3.Connection:
        """The open file; opened anew when another lies in its place, or none.

        A worker may have put it aside, or a person have deleted it: what went into it from then on
        nobody would find.
        """
        if self._connection is not None and self._identity != _identity(self.path):
            self._connection.close()
            self._connection = None
        if self._connection is None:
            with _as_spool_error():
                self._connection = self._open()
                self._identity = _identity(self.path)
        return self._connection

    def _open(self) -> sqlite3.Connection:
        if self.path.exists() and self.path.stat().st_size:
            try:
                return self._connect()
            except sqlite3.OperationalError:  # no room, no right, busy: not damage
                raise
            except sqlite3.DatabaseError:
                pass
        fcntl.flock(self._lock, fcntl.LOCK_EX)  # or two workers would make it, or put it aside
        try:
            return self._make()
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _make(self) -> sqlite3.Connection:
        """Make the file, in place of one that is damaged; another worker may just have."""
        try:
            return self._connect()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
            log.error("%s is damaged (%s): it is now %s", self.path, error, aside)  # noqa: TRY400
        self.path.rename(aside)
        for ending in ("-wal", "-shm"):
            self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
        return self._connect()

    def _connect(self) -> sqlite3.Connection:
        os.close(_open_private(self.path))  # SQLite makes its other files with the same mode
        database = sqlite3.connect(
            self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version == 0:
                database.executescript(_SCHEMA)
            self._require_version(version or _VERSION)
            (page_bytes,) = database.execute("PRAGMA page_size").fetchone()
            for pragma in (
                "journal_mode = WAL",
                "synchronous = FULL",
                "secure_delete = ON",
                f"journal_size_limit = {_WAL_BYTES}",
                f"max_page_count = {max(8, self._max_bytes // page_bytes)}",
            ):
                database.execute(f"PRAGMA {pragma}").fetchall()
            database.execute("SELECT count(*) FROM batch, total").fetchone()
        except BaseException:
            database.close()
            raise
        return database

    def _require_version(self, version: int) -> None:
        if version != _VERSION:
            raise SpoolSettingError(
                f"{self.path} was made by another version of this program: let that one drain it, "
                "or move it away (setting: spool)"
            )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _as_spool_error():
            database = self._database  # looked for once: the file must be the same all the way
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:  # SQLite has ended it where the disk is full
                    database.execute("ROLLBACK")
                raise


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from one of the same name, None when there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _open_private(path: Path) -> int:
    """Open a file that only its owner may read: it holds user ids."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextlib.contextmanager
def _as_spool_error() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise SpoolError(f"the spool: {error}") from error
