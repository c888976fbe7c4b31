"""Whether the write-ahead log can be emptied: by whom it is held, since when, and a word about it.

SQLite folds the log into the file as it goes. It cannot while another program's transaction still
reads from it, nor when the disk refuses: then the log grows with every commit, and nothing that is
asked of it here makes it shorter. Events are taken all the same, until the disk is full: to refuse
them would lose more than it saves. So it is said, once, in the log, and all the time in `/stats`,
in a metric and on the live page.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

import aiosqlite
import structlog

from state_service.schema import LOG_BYTES
from state_service.store import READ_BY_OTHERS, Store

log = structlog.get_logger()

_PERIOD_SECONDS = 1.0
_TOLD_AFTER_SECONDS = 10.0  # a backup's copying is nothing to tell


@dataclass(slots=True)
class LogWatch:
    """Tries to empty a log that is too long, and remembers since when that has failed."""

    store: Store
    reason: str | None = None  # why it cannot be emptied; None while it can, or needs not
    _held_since: float = field(default=0.0)
    _told: bool = False

    @property
    def held_seconds(self) -> float:
        """For how long it could not be emptied; 0 while it can."""
        return 0.0 if self.reason is None else time.monotonic() - self._held_since

    async def run(self, closing: asyncio.Event) -> None:
        """Look each second until `closing`."""
        while not closing.is_set():
            await self.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PERIOD_SECONDS):
                    await closing.wait()

    async def look(self) -> None:
        """Empty the log if it is too long."""
        reason = await self._why_not_empty() if self.store.log_bytes() > LOG_BYTES else None
        if reason is not None and self.reason is None:
            self._held_since = time.monotonic()
        self.reason = reason
        if reason is None and self._told:
            self._told = False
            log.info("the write-ahead log is emptied again")
        elif self.held_seconds > _TOLD_AFTER_SECONDS and not self._told:
            self._told = True
            size = self.store.log_bytes()
            log.warning("the write-ahead log grows and cannot be emptied", reason=reason, size=size)

    async def _why_not_empty(self) -> str | None:
        try:
            return None if await self.store.try_to_fold_log() else READ_BY_OTHERS
        except aiosqlite.Error as error:
            return str(error)
