"""The one writer: requests wait in a queue, are committed in groups, and only then take effect.

The rules
---------
1. Whatever waits when a commit has ended becomes the next group, up to a bound. While the group's
   row is being committed, in the database's thread, the next one gathers: under load a commit is
   shared by many requests, alone it is for one, and nobody waits for a timer.
2. Judge, commit, apply, acknowledge, in that order. Nothing is visible or acknowledged that is not
   committed; a commit that fails has changed nothing, and its requests are told so
   (`NotDurableError`). The next group tries again, so ingest mends itself as soon as there is
   room.
3. A batch counts once: a key that is remembered, or that came earlier in the same group, is
   answered with the counts of its first time.
4. What a forgotten user did before being forgotten is left out, if its batch tells when it was
   received; it is counted `forgotten` and is none of the batch's counts.
5. A request is taken entirely or not at all. A group is judged as one; when that fails, for lack
   of room say, each of its requests is judged on its own, so a refusal hits only whom it concerns.
6. A request whose client has gone is dropped while it waits. Once its group is being committed it
   counts, and a repeat is recognised by its key.

Between judging and applying only time passes: this is the only place that adds events, nobody is
forgotten meanwhile (`recording`), and expiry makes room. So what was judged to fit still fits.
Under the event clock events move time in their order, within a group as well.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, compress
from typing import NamedTuple

import aiosqlite
import numpy as np
import structlog
from numpy.typing import NDArray

from state_service.batch_keys import BatchCounts
from state_service.errors import NotDurableError, UnavailableError
from state_service.formats import Group
from state_service.journal import Journal
from state_service.live import LiveState
from state_service.settings import Settings
from state_service.stages import Stages
from state_service.status import Counters, JournalStatus
from state_service.windows import ACCEPTED
from state_service.wire import Batch

log = structlog.get_logger()

# More users to look up among the forgotten would be felt, a microsecond each.
_INLINE_HASHES = 2_048
_MAX_SHOWN_IDS = 10  # in one log message
GROUP_EVENTS = 16_384  # a group takes no further request beyond: its work is felt on the event loop


class BatchOutcome(NamedTuple):
    """What became of one batch; a duplicate reports the counts of its first time."""

    counts: BatchCounts
    events: int
    duplicate: bool
    forgotten: int = 0  # events of forgotten users, left out now


@dataclass(slots=True)
class _Request:
    """Batches that wait to be recorded."""

    batches: Sequence[Batch]
    done: asyncio.Future[list[BatchOutcome]]

    @property
    def events(self) -> int:
        return sum(len(batch.timestamps) for batch in self.batches)


_Marks = dict[Batch, NDArray[np.bool_]]  # a batch's events to be left out


class _Plan(NamedTuple):
    """What a group of requests will change, and what they will be answered."""

    group: Group
    fresh: list[Batch]  # in the order of the group's keys
    outcomes: list[list[BatchOutcome]]


@dataclass(slots=True)
class Recorder:
    """Takes batches from any number of requests; `run` is the one that writes."""

    settings: Settings
    state: LiveState
    journal: Journal
    counters: Counters
    clock: Callable[[], float]
    stages: Stages
    status: JournalStatus = field(default_factory=JournalStatus)
    _waiting: deque[_Request] = field(default_factory=deque)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _stopping: bool = False
    # Bound once: the module's would look its configuration up for every batch.
    _log: structlog.typing.FilteringBoundLogger = field(default_factory=log.bind)

    @property
    def waiting(self) -> int:
        """How many requests wait for their commit."""
        return len(self._waiting)

    async def record(self, batches: Sequence[Batch]) -> list[BatchOutcome]:
        """Return, for each batch, what became of it, once it is as durable as configured.

        Raises `CapacityError`, `NotDurableError` or `UnavailableError`: then nothing was applied.
        """
        if self._stopping:
            raise UnavailableError("stopping", "stopping")
        if len(self._waiting) >= self.settings.max_requests_in_flight:
            raise UnavailableError(
                f"{len(self._waiting)} requests wait to be recorded: the limit "
                "(max_requests_in_flight)",
                "busy",
                limit="max_requests_in_flight",
            )
        request = _Request(batches, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._changed.set()
        return await request.done

    async def run(self) -> None:
        """Record what comes until `stop`, and then what still waits."""
        while True:
            await self._changed.wait()
            if group := self._gather():
                async with self.state.recording:
                    await self._record(group)
                await asyncio.sleep(0)  # without a commit to wait for, others get their turn here
            elif self._stopping:
                return
            else:
                self._changed.clear()

    def stop(self) -> None:
        """Take no more requests; `run` ends once those that wait are recorded."""
        self._stopping = True
        self._changed.set()

    # --- one group ----------------------------------------------------------------------------

    def _gather(self) -> list[_Request]:
        group: list[_Request] = []
        events = 0
        while self._waiting and events < GROUP_EVENTS:
            request = self._waiting.popleft()
            if not request.done.done():  # its client is still there
                group.append(request)
                events += request.events
        return group

    async def _record(self, requests: list[_Request]) -> None:
        try:
            forgotten = await self._find_forgotten(requests)
            async with self.state.changing:
                plan = self._judge(requests, forgotten)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is its own request's
            if len(requests) == 1:
                _refuse(requests, error)
            else:
                for request in requests:
                    await self._record([request])
            return
        if plan.group.keys and (failure := await self._commit(plan)):
            _refuse(requests, failure)
            return
        if self._log.is_enabled_for(logging.DEBUG):
            self._log_recorded(requests, plan)
        for request, outcomes in zip(requests, plan.outcomes, strict=True):
            self.counters.duplicates += sum(item.events for item in outcomes if item.duplicate)
            self.counters.forgotten += sum(item.forgotten for item in outcomes)
            if not request.done.done():
                request.done.set_result(outcomes)

    async def _find_forgotten(self, requests: list[_Request]) -> _Marks:
        """Mark the events that users forgotten since had caused before."""
        tombstones = self.state.tombstones
        tombstones.expire(self.clock())
        concerned = [
            (batch, batch.received_at)
            for request in requests
            for batch in request.batches
            if batch.received_at is not None and tombstones.concern(batch.received_at)
        ]

        def find() -> _Marks:
            return {batch: tombstones.find(batch.user_ids, at) for batch, at in concerned}

        if sum(len(batch.user_ids) for batch, _ in concerned) <= _INLINE_HASHES:
            return find()
        return await asyncio.to_thread(find)

    def _judge(self, requests: list[_Request], forgotten: _Marks) -> _Plan:
        """Tell what the requests will change; changes nothing but making the room that there is."""
        now = self.clock()
        state, keys = self.state, self.state.keys
        state.expire(now)
        fresh: dict[str, Batch] = {}
        known: dict[str, BatchCounts] = {}
        for batch in chain.from_iterable(request.batches for request in requests):
            if batch.key in fresh or batch.key in known:
                continue
            if (seen := keys.find(batch.key)) is None:
                fresh[batch.key] = batch
            else:
                known[batch.key] = seen
        if given_up := keys.make_room(len(fresh)):
            self.counters.hit("max_batch_keys", given_up)
        kept = [_without(batch, forgotten.get(batch)) for batch in fresh.values()]
        group = self._judge_events(kept, now)
        left_out = {batch.key: int(marks.sum()) for batch, marks in forgotten.items()}
        new = {
            key: BatchCounts(*row)
            for key, row in zip(group.keys, group.counts.tolist(), strict=True)
        }
        to_come, known = set(new), known | new
        outcomes = []
        for request in requests:
            mine = []
            for batch in request.batches:
                counts = known[batch.key]
                first = batch.key in to_come
                forgotten_now = left_out.get(batch.key, 0) if first else 0
                mine.append(BatchOutcome(counts, len(batch.user_ids), not first, forgotten_now))
                to_come.discard(batch.key)
            outcomes.append(mine)
        return _Plan(group, list(fresh.values()), outcomes)

    def _judge_events(self, fresh: list[Batch], now: float) -> Group:
        """Judge all events in one step; return those that are accepted, and each batch's counts."""
        windows = self.state.windows
        user_ids = list(chain.from_iterable(batch.user_ids for batch in fresh))
        timestamps = np.concatenate([batch.timestamps for batch in fresh] or [np.empty(0)])
        scores = np.concatenate([batch.scores for batch in fresh] or [np.empty(0)])
        verdicts = windows.judge(user_ids, timestamps, now).verdicts
        batch_of = np.repeat(
            np.arange(len(fresh)), np.array([len(batch.user_ids) for batch in fresh], np.int64)
        )
        # Verdicts are 0, 1, 2 in the order of the columns: accepted, late, future.
        counts = np.bincount(3 * batch_of + verdicts, minlength=3 * len(fresh)).reshape(-1, 3)
        accepted = verdicts == ACCEPTED
        if not accepted.all():
            user_ids = list(compress(user_ids, accepted))
            timestamps, scores = timestamps[accepted], scores[accepted]
        seen_at = windows.confirmed(now)
        return Group(seen_at, [batch.key for batch in fresh], counts, user_ids, timestamps, scores)

    async def _commit(self, plan: _Plan) -> NotDurableError | None:
        """Write the group, then apply it. Returns why it could not be written."""
        sequence = self.state.sequence + 1
        if self.settings.durability != "snapshot":
            try:
                with self.stages.measure("journal"):
                    await self.journal.append(sequence, plan.group)
            except aiosqlite.Error as error:
                return self._commit_failed(str(error), plan)
            self._commit_succeeded()
        async with self.state.changing:
            with self.stages.measure("apply"):
                self.state.apply(sequence, plan.group)
            self._count(plan)
        return None

    def _commit_failed(self, reason: str, plan: _Plan) -> NotDurableError:
        if self.status.error != reason:  # once, not at every request of a night
            ids = [batch.request_id for batch in plan.fresh if batch.request_id is not None]
            log.error(
                "the journal cannot be written; events are refused",
                reason=reason,
                request_ids=ids[:_MAX_SHOWN_IDS],
            )
        self.status.error = reason
        self.status.failures += 1
        return NotDurableError(f"nothing was recorded: the journal cannot be written: {reason}")

    def _commit_succeeded(self) -> None:
        self.status.commits += 1
        if self.status.error is not None:
            log.info("the journal can be written again")
        self.status.error = None

    def _log_recorded(self, requests: list[_Request], plan: _Plan) -> None:
        """Tell what became of each batch, under what its client calls it: never a user id."""
        for request, outcomes in zip(requests, plan.outcomes, strict=True):
            for batch, outcome in zip(request.batches, outcomes, strict=True):
                self._log.debug(
                    "recorded",
                    request_id=batch.request_id,
                    traceparent=batch.traceparent,
                    key=batch.key,
                    **outcome.counts._asdict(),
                    skipped=batch.skipped,
                    duplicate=outcome.duplicate,
                )

    def _count(self, plan: _Plan) -> None:
        counters, now = self.counters, self.clock()
        accepted, late, future = plan.group.counts.sum(axis=0).tolist()
        counters.accepted += accepted
        counters.late += late
        counters.future += future
        counters.ingest_requests += len(plan.fresh)
        for batch in plan.fresh:
            counters.skipped += batch.skipped
            if batch.received_at is not None:
                counters.timed_requests += 1
                counters.latency_seconds_total += max(0.0, now - batch.received_at)


def _without(batch: Batch, marks: NDArray[np.bool_] | None) -> Batch:
    """Return a batch without the events that are marked."""
    if marks is None or not marks.any():
        return batch
    kept = ~marks
    return replace(
        batch,
        user_ids=list(compress(batch.user_ids, kept)),
        timestamps=batch.timestamps[kept],
        scores=batch.scores[kept],
    )


def _refuse(requests: list[_Request], error: Exception) -> None:
    for request in requests:
        if not request.done.done():
            request.done.set_exception(error)
