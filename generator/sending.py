"""Send the workload on schedule, whatever the answers do (open loop).

A dispatcher walks the schedule and starts a task for each request when it is due. At most
`max_in_flight` are under way, those waiting for a retry included; when that many are, due requests
wait their turn, are stamped when they really leave, and their latency counts from the due time all
the same. A retry repeats the same bytes under the same Idempotency-Key.
"""

import asyncio
import secrets
import time
from typing import Any

import aiohttp
import numpy as np

from generator.client import payload
from generator.ledger import Ledger
from generator.options import SCORER_PATH, RunOptions
from generator.outcomes import (
    DROPPED,
    GIVEN_UP,
    NO_CONNECTION,
    TIMED_OUT,
    Outcome,
    ScorerAnswer,
    Verdict,
    judge,
    retry_delay_seconds,
)
from generator.tally import Tally, count_reason
from generator.workload import Request, Workload

_FORGET_EVERY_REQUESTS = 256


class Sender:
    """One run's sending side. Counts into `tally`; keeps evidence in `ledger` when there is one."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        options: RunOptions,
        workload: Workload,
        tally: Tally,
        ledger: Ledger | None,
    ) -> None:
        self._session = session
        self._options = options
        self._workload = workload
        self._tally = tally
        self._ledger = ledger
        self._pace = options.pace
        self._url = options.url + SCORER_PATH
        self._key_prefix = secrets.token_hex(8)
        self._slots = asyncio.Semaphore(options.max_in_flight)
        self._under_way: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()
        self._given_up = asyncio.Event()
        self._started_at = 0.0
        self._acknowledged_at = 0.0

    def stop(self) -> None:
        """Send no more; when called again, don't wait for what is in flight either."""
        if self._stopped.is_set():
            self._given_up.set()
        self._stopped.set()

    async def run(self) -> None:
        """Send everything, or until `stop()` is called, and wait for the answers.

        Bounds: overdue requests are sent for `drain_seconds` after the schedule's end; every
        request ends after its attempts; after `stop()` what is in flight gets `timeout_seconds`.
        """
        loop = asyncio.get_running_loop()
        self._started_at = self._acknowledged_at = loop.time()
        stopped = asyncio.create_task(self._stopped.wait())
        given_up = asyncio.create_task(self._given_up.wait())
        try:
            async with asyncio.TaskGroup() as group:
                dispatcher = group.create_task(self._dispatch(group))
                await _first_of(dispatcher, stopped)
                sent_for = loop.time() - self._started_at
                dispatcher.cancel()
                if self._under_way:
                    answers = group.create_task(_all_of(set(self._under_way)))
                    await _first_of(answers, stopped)
                    await _first_of(answers, given_up, timeout=self._options.timeout_seconds)
                    answers.cancel()
                for task in self._under_way:
                    task.cancel()
        finally:
            stopped.cancel()
            given_up.cancel()
        self._finish(sent_for)

    def _finish(self, sent_for: float) -> None:
        tally = self._tally
        tally.interrupted = self._stopped.is_set()
        window = self._pace.window_seconds
        if tally.interrupted:
            window = min(window, sent_for)
        tally.elapsed_seconds = max(window, self._acknowledged_at - self._started_at)
        unsent_requests = self._pace.total - tally.sent_requests
        tally.unsent_events = unsent_requests * self._workload.options.batch

    async def _dispatch(self, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        last_start = self._started_at + self._pace.window_seconds + self._options.drain_seconds
        index = 0
        while index < self._pace.total:
            due_by_now = self._pace.due_by(loop.time() - self._started_at)
            while index < due_by_now:
                await self._slots.acquire()
                if loop.time() > last_start:
                    self._slots.release()
                    return
                task = group.create_task(self._deliver(index))
                self._under_way.add(task)
                task.add_done_callback(self._delivered)
                index += 1
                if index % _FORGET_EVERY_REQUESTS == 0 and self._ledger is not None:
                    self._ledger.forget(time.time())
            if index < self._pace.total:
                due_at = self._started_at + self._pace.due_seconds(index)
                await asyncio.sleep(due_at - loop.time())

    def _delivered(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._slots.release()

    async def _deliver(self, index: int) -> None:
        loop = asyncio.get_running_loop()
        tally = self._tally
        due_at = self._started_at + self._pace.due_seconds(index)
        request = self._workload.request(index, time.time())
        tally.sent_requests += 1
        tally.sent_events += len(request.users)
        tally.start_lag.record(loop.time() - due_at)
        if self._ledger is not None:
            self._ledger.sent(request.users)
        tally.in_flight += 1
        attempts = _Attempts()
        try:
            await self._attempt_until_final(index, request, attempts)
        except asyncio.CancelledError:
            attempts.note(GIVEN_UP)
            count_reason(tally.attempt_failures, GIVEN_UP.reason)
            raise
        finally:
            tally.in_flight -= 1
            answer = attempts.last.answer
            if answer is None:
                self._fail(request, attempts)
            else:
                self._acknowledged_at = loop.time()
                tally.latency.record(self._acknowledged_at - due_at)
                self._acknowledge(request, answer)

    async def _attempt_until_final(
        self, index: int, request: Request, attempts: "_Attempts"
    ) -> None:
        tally = self._tally
        headers = {"Idempotency-Key": f"{self._key_prefix}-{index}"}
        for attempt in range(self._options.retries + 1):
            outcome = await self._attempt(request, headers)
            attempts.note(outcome)
            if outcome.verdict is Verdict.ACKNOWLEDGED:
                return
            count_reason(tally.attempt_failures, outcome.reason)
            if outcome.verdict is Verdict.REFUSED or attempt == self._options.retries:
                return
            await asyncio.sleep(retry_delay_seconds(attempt, index, outcome.retry_after_seconds))
            tally.retries += 1
            tally.retried_requests += attempt == 0

    async def _attempt(self, request: Request, headers: dict[str, str]) -> Outcome:
        try:
            async with self._session.post(
                self._url, data=payload(request.body), headers=headers
            ) as response:
                body = await response.read()
                retry_after = response.headers.get("Retry-After")
                return judge(response.status, retry_after, body, len(request.users))
        except TimeoutError:
            return TIMED_OUT
        except aiohttp.ClientConnectorError:
            return NO_CONNECTION
        except (aiohttp.ClientError, OSError):
            return DROPPED

    def _fail(self, request: Request, attempts: "_Attempts") -> None:
        self._tally.failed_requests += 1
        count_reason(self._tally.failures, attempts.last.reason)
        if attempts.in_doubt:
            self._tally.in_doubt_requests += 1
            if self._ledger is not None:
                self._ledger.doubt(request.users)

    def _acknowledge(self, request: Request, answer: ScorerAnswer) -> None:
        scores = np.array(answer.scores, dtype=np.float64)  # null becomes NaN, which JSON can't say
        scored = ~np.isnan(scores)
        processed = int(np.count_nonzero(scored))
        accepted = processed - answer.late - answer.future
        tally = self._tally
        tally.accepted_requests += 1
        tally.accepted_events += accepted
        tally.skipped_events += len(scores) - processed
        tally.late_events += answer.late
        tally.future_events += answer.future
        if answer.recorded == "spooled":
            tally.spooled_events += accepted
        if self._ledger is None:
            return
        # Spooled events count some time later. Which events a service with another clock refused
        # as future, the answer doesn't say. (Late ones are outside any later window anyway.)
        if answer.recorded == "spooled" or answer.future:
            self._ledger.doubt(request.users)
        self._ledger.acknowledge(request.users[scored], request.timestamps[scored], scores[scored])


async def _all_of(tasks: set[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)


async def _first_of(*tasks: asyncio.Task[Any], timeout: float | None = None) -> None:  # noqa: ASYNC109  # the tasks go on
    await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)


class _Attempts:
    """What a request's attempts have come to; doubt stays, whatever later attempts say."""

    __slots__ = ("in_doubt", "last")

    def __init__(self) -> None:
        self.last: Outcome = GIVEN_UP
        self.in_doubt = False

    def note(self, outcome: Outcome) -> None:
        self.last = outcome
        self.in_doubt = self.in_doubt or outcome.verdict is Verdict.IN_DOUBT
