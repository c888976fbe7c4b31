"""Doing to the stack what the schedule says, and undoing it."""

import asyncio
import contextlib
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import cast

import psutil

from chaos.disk import SmallDisk
from chaos.management import Management, ManagementError
from chaos.proxy import Proxy, Trouble, TroubleKind
from chaos.schedule import Fault, Kind
from chaos.target import JVM, STATE, WORKER, Target, limit_files, send_signal

_POLL_SECONDS = 0.1
_FIND_SECONDS = 30.0  # a process that was killed a moment ago may be on its way back
_MANAGEMENT_SECONDS = 60.0
_MANAGEMENT_PAUSE_SECONDS = 1.0
_STACK_STOPS_SECONDS = 60.0
_LOCKED_SECONDS = 2.0


class NotInjectedError(Exception):
    """There was nothing to break; the message says what was missing."""


class Injector:
    """Injects faults into one stack; the disk is None where there is none to fill."""

    def __init__(
        self,
        target: Target,
        proxy: Proxy,
        management: Management,
        disk: SmallDisk | None,
        workers: int,
    ) -> None:
        """`workers` is how many serve in peace."""
        self._target, self._proxy = target, proxy
        self._management, self._disk = management, disk
        self._workers = workers

    async def inject(self, fault: Fault) -> None:
        """Do it, wait for its time, undo it. Raises `NotInjectedError`."""
        await self._ways[fault.kind](self, fault)

    async def _kill_worker(self, _fault: Fault) -> None:
        await self._kill(lambda: self._target.of_role(WORKER))

    async def _kill_jvm(self, _fault: Fault) -> None:
        await self._kill(lambda: self._target.of_role(JVM))

    async def _kill_state(self, _fault: Fault) -> None:
        await self._kill(lambda: self._target.of_role(STATE))

    async def _kill_supervisor(self, _fault: Fault) -> None:
        await self._kill(self._target.supervisord)
        with contextlib.suppress(TimeoutError):  # then it is not one that stops by itself
            async with asyncio.timeout(_STACK_STOPS_SECONDS):
                while self._target.runs():  # noqa: ASYNC110 - processes set no events
                    await asyncio.sleep(_POLL_SECONDS)
        self._target.start()

    async def _kill_stack(self, _fault: Fault) -> None:
        await asyncio.to_thread(self._target.kill_everything)
        self._target.start()

    async def _restart(self, _fault: Fault) -> None:
        await asyncio.to_thread(self._target.stop)
        self._target.start()

    async def _kill(self, candidates: Callable[[], list[psutil.Process]]) -> None:
        while not send_signal(await self._found(candidates), signal.SIGKILL):
            pass

    async def _stop_state(self, fault: Fault) -> None:
        process = await self._found(lambda: self._target.of_role(STATE))
        if not send_signal(process, signal.SIGSTOP):
            raise NotInjectedError("the state service had just ended")
        await asyncio.sleep(fault.seconds)
        send_signal(process, signal.SIGCONT)

    async def _found(self, candidates: Callable[[], list[psutil.Process]]) -> psutil.Process:
        """Return the oldest candidate, as soon as there is one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIND_SECONDS):
                while not (found := candidates()):  # noqa: ASYNC110 - as above
                    await asyncio.sleep(_POLL_SECONDS)
                return found[0]
        raise NotInjectedError("no such process")

    async def _trouble(self, fault: Fault) -> None:
        await self._proxy.set(Trouble(cast("TroubleKind", fault.kind.value), fault.amount))
        await asyncio.sleep(fault.seconds)
        await self._proxy.heal()

    async def _full_disk(self, fault: Fault) -> None:
        if self._disk is None:
            raise NotInjectedError("no disk to fill")
        async with _cleared(self._disk):
            await asyncio.to_thread(self._disk.fill)
            # The write-ahead log is some megabytes long and written again from its beginning, so
            # for many seconds nobody would notice. Without it the next commit needs room.
            await asyncio.to_thread(_fold_log_in, self._target.database)
            await asyncio.to_thread(self._disk.fill)
            await asyncio.sleep(fault.seconds)

    async def _file_limit(self, fault: Fault) -> None:
        """Limit the state service and the workers, who may keep a spool."""
        await self._found(lambda: self._target.of_role(STATE))
        limited = [*self._target.of_role(STATE), *self._target.of_role(WORKER)]
        for process in limited:
            limit_files(process, int(fault.amount))
        await asyncio.sleep(fault.seconds)
        for process in limited:
            limit_files(process, None)

    async def _scale(self, fault: Fault) -> None:
        await self._manage(lambda: self._management.scale(round(fault.amount)))
        await self._manage(lambda: self._management.scale(self._workers))

    async def _new_version(self, _fault: Fault) -> None:
        await self._manage(self._replace_version)

    async def _replace_version(self) -> None:
        try:
            self._target.offer_archives()  # each time: a start clears the store
        except OSError as error:  # a full disk, or no store yet
            raise ManagementError(str(error)) from error
        await self._management.replace_version(self._workers)

    async def _manage(self, order: Callable[[], Awaitable[object]]) -> None:
        """Give an order until it is carried out: another fault may come in between."""
        said = ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_MANAGEMENT_SECONDS):
                while True:
                    try:
                        await order()
                    except ManagementError as error:
                        said = str(error)
                        await asyncio.sleep(_MANAGEMENT_PAUSE_SECONDS)
                    else:
                        return
        raise NotInjectedError(said or "TorchServe did not get there")

    _ways: dict[Kind, Callable[["Injector", Fault], Awaitable[None]]] = {  # noqa: RUF012 - constant
        Kind.KILL_WORKER: _kill_worker,
        Kind.KILL_JVM: _kill_jvm,
        Kind.KILL_STATE: _kill_state,
        Kind.KILL_SUPERVISOR: _kill_supervisor,
        Kind.KILL_STACK: _kill_stack,
        Kind.RESTART: _restart,
        Kind.STOP_STATE: _stop_state,
        Kind.CUT: _trouble,
        Kind.DELAY: _trouble,
        Kind.THROTTLE: _trouble,
        Kind.RESET_REQUEST: _trouble,
        Kind.RESET_ANSWER: _trouble,
        Kind.SWALLOW_REQUEST: _trouble,
        Kind.SWALLOW_ANSWER: _trouble,
        Kind.FULL_DISK: _full_disk,
        Kind.FILE_LIMIT: _file_limit,
        Kind.SCALE: _scale,
        Kind.NEW_VERSION: _new_version,
    }


def _fold_log_in(database: Path) -> None:
    """Do what SQLite does now and then: move the log's pages into the file, and shorten the log."""
    with (
        contextlib.suppress(sqlite3.Error),  # busy, or no room for that either
        contextlib.closing(
            sqlite3.connect(f"{database.as_uri()}?mode=rw", timeout=_LOCKED_SECONDS, uri=True)
        ) as connection,
    ):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextlib.asynccontextmanager
async def _cleared(disk: SmallDisk) -> AsyncIterator[None]:
    try:
        yield
    finally:
        disk.clear()
