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
import os
import sqlite3
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

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
    """The spool cannot be used, or has no room: nothing has been kept."""


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

    Every method but `close` raises `SpoolError` when SQLite cannot do it.
    """

    def __init__(self, path: Path, max_bytes: int, max_age_seconds: float) -> None:
        """Open the file, made if it is not there; one that is damaged is put aside first."""
        self.path = path
        self._max_bytes = max_bytes
        self._max_age_seconds = max_age_seconds
        self.put_aside: Path | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _open_private(path.with_name(path.name + ".lock"))
        except OSError as error:
            raise SpoolError(f"cannot open {path}: {error} (setting: spool)") from error
        try:
            with self._locked():  # two workers must not both make it, nor put the other's aside
                self._database = self._open()
        except BaseException:
            os.close(self._lock)
            raise

    def put(self, body: bytes, events: int) -> None:
        """Keep one body: on disk when this returns."""
        row = (time.time(), events, zlib.crc32(body), body)
        with self._transaction():
            self._database.execute(
                "INSERT INTO batch (spooled_at, events, crc32, body) VALUES (?, ?, ?, ?)", row
            )
            self._database.execute("UPDATE total SET spooled = spooled + ?", (events,))

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
        with self._transaction():
            self._database.execute("DELETE FROM batch WHERE number = ?", (sent.number,))
            self._database.execute("UPDATE total SET replayed = replayed + ?", (sent.events,))

    def refuse(self, sent: SpooledBody, reason: str) -> None:
        """Keep a body that cannot be sent out of the others' way, until it is too old."""
        with self._transaction():
            self._database.execute(
                "UPDATE batch SET refused = ? WHERE number = ?", (reason, sent.number)
            )

    def expire(self) -> int:
        """Delete what is too old to be in any window; return how many events that were."""
        bound = (time.time() - self._max_age_seconds,)
        with _as_spool_error():
            oldest = self._database.execute(
                "SELECT spooled_at FROM batch ORDER BY number LIMIT 1"
            ).fetchone()
        if oldest is None or oldest >= bound:
            return 0
        with self._transaction():
            (events,) = self._database.execute(
                "SELECT coalesce(sum(events), 0) FROM batch WHERE spooled_at < ?", bound
            ).fetchone()
            self._database.execute("DELETE FROM batch WHERE spooled_at < ?", bound)
            self._database.execute("UPDATE total SET expired = expired + ?", (events,))
        return int(events)

    def shrink(self) -> None:
        """Give free pages back to the disk, and leave nothing of what was deleted in the log."""
        with _as_spool_error():
            self._database.execute("PRAGMA incremental_vacuum").fetchall()
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
        self._database.close()
        os.close(self._lock)

    # --- opening ------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # no room, no right, busy: not damage
                raise SpoolError(f"cannot open {self.path}: {error} (setting: spool)") from error
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
        self.path.rename(aside)
        for ending in ("-wal", "-shm"):
            self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
        self.put_aside = aside
        with _as_spool_error():
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
            raise SpoolError(
                f"{self.path} was made by another version of this program: let that one drain it, "
                "or move it away (setting: spool)"
            )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Wait for the drainer's lock: whoever drains lets go of it between two bodies."""
        deadline = time.monotonic() + 10 * _BUSY_SECONDS
        while True:
            with self.draining() as alone:
                if alone:
                    yield
                    return
            if time.monotonic() > deadline:
                yield  # somebody drains it, so it is there and not damaged
                return
            time.sleep(_BUSY_SECONDS / 100)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with _as_spool_error():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # SQLite has ended it where the disk is full
                    self._database.execute("ROLLBACK")
                raise


def _open_private(path: Path) -> int:
    """Open a file that only its owner may read: it holds user ids."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextlib.contextmanager
def _as_spool_error() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise SpoolError(f"the spool: {error}") from error
