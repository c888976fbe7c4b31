"""How many users and scores the windows hold now, and where all users' medians have their middle.

Both are read off the rankings of `everybody.py`. Where few are to be looked at, each asker is told
how things are at that moment. What takes long is not done at every question: it rests for twenty
times as long as it took, and whoever asks meanwhile, or would have to wait, is told the last result
and its age.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import structlog

from state_service.errors import UnavailableError
from state_service.everybody import Everybody
from state_service.service import StateService

log = structlog.get_logger()

_QUICK_SECONDS = 0.01
_REST = 20  # times as long as it took
_PATIENCE_SECONDS = 0.25

_Counted = TypeVar("_Counted")


@dataclass(frozen=True, slots=True)
class Headcount:
    """What was in the windows at `time`, epoch seconds; None before anything was counted."""

    users: int = 0
    live_events: int = 0
    time: float | None = None


@dataclass(frozen=True, slots=True)
class Middle:
    """The median of the medians of `users` users, None of none, at `time` as in `Headcount`."""

    median: float | None = None
    users: int = 0
    time: float | None = None


@dataclass(slots=True)
class _Kept(Generic[_Counted]):
    """The last result of something that may take long."""

    compute: Callable[[], Awaitable[_Counted]]
    value: _Counted
    _rests_until: float = 0.0
    _task: asyncio.Task[None] | None = field(default=None)  # all who ask meanwhile share it
    _patient_until: float = 0.0

    async def recent(self) -> _Counted:
        """Return the result of this moment, or the last one where that would take long."""
        now = time.monotonic()
        if self._task is None and now >= self._rests_until:
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(_tell_fault)
            self._patient_until = now + _PATIENCE_SECONDS
        if (task := self._task) is not None and now < self._patient_until:
            await asyncio.wait({task}, timeout=self._patient_until - now)
            if task.done():
                task.result()
        return self.value

    async def _run(self) -> None:
        begin = time.monotonic()
        try:
            self.value = await self.compute()
        except UnavailableError:  # restoring or stopping: the last result has to do
            return
        finally:
            took = time.monotonic() - begin
            if took > _QUICK_SECONDS:
                self._rests_until = time.monotonic() + _REST * took
            self._task = None


def _tell_fault(task: asyncio.Task[None]) -> None:
    """Log why it failed: nobody may be waiting for it any more."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("what the windows hold was not counted", exc_info=error)


class Census:
    """Counts what is in one service's windows."""

    def __init__(self, service: StateService, everybody: Everybody) -> None:
        self._service = service
        self._everybody = everybody
        self._headcount = _Kept(self._count, Headcount())
        self._middle = _Kept(self._find_middle, Middle())

    async def headcount(self) -> Headcount:
        """Return how many users and scores are in the windows."""
        return await self._headcount.recent()

    async def middle(self) -> Middle:
        """Return the median of all users' medians."""
        return await self._middle.recent()

    async def _count(self) -> Headcount:
        at = self._service.clock()
        ranking = await self._everybody.ranking("count")
        return Headcount(len(ranking), int(ranking.counts.sum()), at)

    async def _find_middle(self) -> Middle:
        at = self._service.clock()
        ranking = await self._everybody.ranking("median")
        if not len(ranking):
            return Middle(None, 0, at)
        median = await asyncio.to_thread(np.median, ranking.values)
        return Middle(float(median) + 0.0, len(ranking), at)

    def age_seconds(self, counted: Headcount | Middle) -> float | None:
        """Return how old a result is, None when there is none yet."""
        at = counted.time
        return None if at is None else max(0.0, self._service.clock() - at)
