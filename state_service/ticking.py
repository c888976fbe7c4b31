"""One tick a second for all who look at the live page, and none of it on the way of an event.

Each tick takes a reading of the counters, so that the page opens with the last minutes drawn. All
else is done only while somebody looks, and once however many do: the numbers, TorchServe's status,
the question about each user who is watched. Rankings of all users take long where there are many:
they are computed beside the ticks, and rest for twenty times as long as the last one took.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from state_service.census import Census
from state_service.errors import UnavailableError
from state_service.everybody import Everybody
from state_service.outcomes import Outcomes
from state_service.overview import (
    Overview,
    Rankings,
    Rates,
    Reading,
    TorchServeStatus,
    conditions,
    rates,
)
from state_service.routes_service import stats_of
from state_service.service import StateService
from state_service.torchserve_status import TorchServe
from state_service.viewers import Viewers, event
from state_service.watching import user_view

log = structlog.get_logger()

_PERIOD_SECONDS = 1.0
_RATES_OVER = 5  # readings: the rate of a second alone would jump about
_HISTORY_READINGS = 300
_RANKED = 10
_TELLING_SCORES = 10
_FRESH_SECONDS = 10.0
_REST = 20  # times as long as a ranking took


class Ticker:
    """Takes the readings and makes the messages."""

    def __init__(
        self,
        service: StateService,
        viewers: Viewers,
        torchserve: TorchServe,
        everybody: Everybody,
        census: Census,
    ) -> None:
        self.period_seconds = _PERIOD_SECONDS
        self._service = service
        self._viewers = viewers
        self._torchserve = torchserve
        self._everybody = everybody
        self._census = census
        self._readings = deque([self._reading()], maxlen=_HISTORY_READINGS + _RATES_OVER)
        self._status = TorchServeStatus()
        self._rankings: Rankings | None = None
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Tick until `stop`."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repeat(self._tick))
            tasks.create_task(self._repeat(self._ask_torchserve))
            tasks.create_task(self._repeat(self._rank_for_viewers))

    def stop(self) -> None:
        """Let `run` end, and every stream."""
        self._stop.set()
        self._viewers.close()

    # --- what is shown ------------------------------------------------------------------------

    async def overview(self) -> Overview:
        """Return the numbers of this moment; counts that take long are as old as they say."""
        service = self._service
        stats = await stats_of(service, self._census)
        recent = Outcomes.of(service.counters).since(self._readings[0].outcomes)
        return Overview(
            time=service.clock(),
            conditions=conditions(stats, self._status, service.settings, recent),
            stats=stats,
            rates=self._rates(len(self._readings) - 1),
            torchserve=self._status,
            rankings=self._rankings,
        )

    async def full_overview(self) -> Overview:
        """Return them with TorchServe's status and rankings that are of now, or nearly."""
        self._status = await self._torchserve.status()
        if self._rankings is None or self._service.clock() - self._rankings.time > _FRESH_SECONDS:
            with contextlib.suppress(UnavailableError):
                await self._rank()
        return await self.overview()

    def history(self) -> list[Rates]:
        """Return the rates of the last minutes, a second each."""
        return [self._rates(last) for last in range(1, len(self._readings))]

    # --- what is repeated ---------------------------------------------------------------------

    async def _repeat(self, work: Callable[[], Awaitable[float]]) -> None:
        """Do it again after as many seconds as it says; a fault of the page ends nothing else."""
        while not self._stop.is_set():
            pause = self.period_seconds
            try:
                pause = await work()
            except UnavailableError:  # restoring or stopping: there is nothing to show yet
                pass
            except Exception:
                log.exception("the live page has a fault")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stop.wait()

    async def _tick(self) -> float:
        begin = time.monotonic()
        self._readings.append(self._reading())
        subjects = self._viewers.subjects
        if None in subjects:
            self._viewers.publish(None, event("overview", await self.overview()))
        for subject in subjects:
            if subject is not None:
                view = await user_view(self._service, subject)
                self._viewers.publish(subject, event("user", view))
        return max(0.0, begin + self.period_seconds - time.monotonic())

    async def _ask_torchserve(self) -> float:
        if None in self._viewers.subjects:
            self._status = await self._torchserve.status()
        return self.period_seconds

    async def _rank_for_viewers(self) -> float:
        return await self._rank() if None in self._viewers.subjects else self.period_seconds

    async def _rank(self) -> float:
        begin = time.monotonic()
        at = self._service.clock()
        by_count = await self._everybody.ranking("count")
        by_median = await self._everybody.ranking("median")
        most = await asyncio.to_thread(by_count.first, _RANKED, "desc")
        # Of a single score the median is that score: such users would fill both ends.
        min_count = _TELLING_SCORES
        telling = await asyncio.to_thread(by_median.of_at_least, min_count)
        if len(telling) < _RANKED:
            min_count, telling = 1, by_median
        highest = await asyncio.to_thread(telling.first, _RANKED, "desc")
        lowest = await asyncio.to_thread(telling.first, _RANKED, "asc")
        took = time.monotonic() - begin
        self._rankings = Rankings(
            time=at,
            seconds=took,
            min_count=min_count,
            most_active=most,
            highest_medians=highest,
            lowest_medians=lowest,
        )
        return self.period_seconds + _REST * took

    def _reading(self) -> Reading:
        service = self._service
        return Reading.of(service.counters, service.clock(), time.monotonic())

    def _rates(self, last: int) -> Rates:
        return rates(self._readings[max(0, last - _RATES_OVER)], self._readings[last])
