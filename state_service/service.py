"""The state service without HTTP: one process's parts, put together, and its life.

Restoring, ready, stopping. `run` lives through all three: it restores, then lets the recorder
write, the windows settle and snapshots be taken, until `stop`; then it records what still waits
and ends. `close` follows, with a last snapshot.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

import structlog

from state_service.batch_keys import BatchKeys
from state_service.errors import ConflictError, StorageError, UnavailableError
from state_service.forgetting import Forgetter, Forgotten, load_tombstones
from state_service.journal import Journal
from state_service.live import LiveState
from state_service.log_watch import LogWatch
from state_service.loop_lag import LoopLag
from state_service.models import Models
from state_service.recorder import BatchOutcome, Recorder
from state_service.restoring import Restorer
from state_service.schema import UNREADABLE
from state_service.settings import Settings
from state_service.snapshot import SnapshotStore
from state_service.snapshotting import Snapshotter
from state_service.spools import Spools
from state_service.stages import Stages
from state_service.status import Counters, JournalStatus, RestoreStatus, SnapshotStatus
from state_service.store import Store
from state_service.windows import Windows
from state_service.wire import Batch

log = structlog.get_logger()


@dataclass(slots=True)
class StateService:
    """The state of one process. `run` it; at the end `stop` it, and `close` it when it has."""

    settings: Settings
    store: Store
    snapshot_store: SnapshotStore
    journal: Journal
    clock: Callable[[], float] = time.time  # replaced in tests: the parts ask through the service
    phase: Literal["restoring", "ready", "stopping"] = "restoring"
    requests_in_flight: int = 0
    loop_lag: LoopLag = field(default_factory=LoopLag)
    counters: Counters = field(default_factory=Counters)
    stages: Stages = field(default_factory=Stages)
    spools: Spools = field(default_factory=Spools)
    models: Models = field(default_factory=Models)
    log_watch: LogWatch = field(init=False)
    started_at: float = field(init=False)
    state: LiveState = field(init=False)
    _recorder: Recorder = field(init=False)
    _snapshotter: Snapshotter = field(init=False)
    _restorer: Restorer = field(init=False)
    _forgetter: Forgetter = field(init=False)
    _closing: asyncio.Event = field(default_factory=asyncio.Event)
    _snapshot_wanted: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    async def open(cls, settings: Settings, clock: Callable[[], float] = time.time) -> Self:
        """Open the database. Raises `StorageError` when it cannot be used."""
        store = await Store.open(settings.database_path, settings.durability)
        try:
            snapshot_store, journal = await SnapshotStore.open(store), await Journal.open(store)
            service = cls(settings, store, snapshot_store, journal, clock)
            await load_tombstones(store, service.state.tombstones)
        except (*UNREADABLE, StorageError) as error:
            await store.close()
            raise StorageError(
                f"{settings.database} cannot be used: {error}; move it away or name another file "
                "(setting: database)"
            ) from error
        return service

    def __post_init__(self) -> None:
        def now() -> float:
            return self.clock()

        self.started_at = now()
        self.log_watch = LogWatch(self.store)
        self.state = LiveState.empty(self.settings)
        self._recorder = Recorder(
            self.settings, self.state, self.journal, self.counters, now, self.stages
        )
        self._snapshotter = Snapshotter(
            self.state, self.store, self.snapshot_store, self.journal, self._recorder.status, now
        )
        self._forgetter = Forgetter(self.state, self.store, self._snapshotter, self.counters, now)
        self._restorer = Restorer(self.store, self.snapshot_store, self.journal, self.state, now)

    # --- what others look at ------------------------------------------------------------------

    @property
    def windows(self) -> Windows:
        """All users' windows, for questions."""
        return self.state.windows

    @property
    def keys(self) -> BatchKeys:
        """The batch keys remembered."""
        return self.state.keys

    @property
    def commits(self) -> JournalStatus:
        """How the journal is doing."""
        return self._recorder.status

    @property
    def requests_waiting(self) -> int:
        """How many requests wait to be recorded."""
        return self._recorder.waiting

    @property
    def snapshots(self) -> SnapshotStatus:
        """How the last snapshots went."""
        return self._snapshotter.status

    @property
    def restored(self) -> RestoreStatus:
        """What came back at the start."""
        return self._restorer.status

    # --- requests -----------------------------------------------------------------------------

    async def record(self, batches: Sequence[Batch]) -> list[BatchOutcome]:
        """Take new batches, recognise repeated ones; return once it is as durable as configured.

        All or nothing. Raises `CapacityError`, `NotDurableError` or `UnavailableError`.
        """
        return await self._recorder.record(batches)

    async def forget(self, user_id: str) -> Forgotten:
        """Remove a user from memory and from disk, and keep replays from bringing the user back.

        Raises `NotDurableError`, which says what is left, or `UnavailableError`.
        """
        return await self._forgetter.forget(user_id)

    def require_ready(self) -> None:
        """Raise `UnavailableError` unless requests can be served."""
        if self.phase == "restoring":
            raise UnavailableError(f"restoring: {self.restored.progress}", "restoring")
        if self.phase == "stopping":
            raise UnavailableError("stopping", "stopping")

    @contextlib.contextmanager
    def one_more_in_flight(self) -> Iterator[None]:
        """Count a request whose body is being read; refuse it when there are too many."""
        limit = self.settings.max_requests_in_flight
        if self.requests_in_flight >= limit:
            raise UnavailableError(
                f"{limit} requests are in flight: the limit (max_requests_in_flight)",
                "busy",
                limit="max_requests_in_flight",
            )
        self.requests_in_flight += 1
        try:
            yield
        finally:
            self.requests_in_flight -= 1

    # --- life ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Restore, then record, settle and snapshot until `stop`. Raises `StorageError`."""
        await self._restorer.restore(self._closing.is_set)
        if self._closing.is_set():
            return
        self.phase = "ready"
        try:
            async with asyncio.TaskGroup() as tasks:  # a bug in one must not leave half a service
                tasks.create_task(self._recorder.run())
                tasks.create_task(self._forgetter.run())
                tasks.create_task(self.state.keep_settled())
                tasks.create_task(self._snapshot_at_intervals())
                tasks.create_task(self.loop_lag.measure(self._closing))
                tasks.create_task(self.log_watch.run(self._closing))
        except ExceptionGroup:
            log.exception("a fault ends the service")  # now: what follows may take a while
            raise

    async def snapshot(self) -> bool:
        """Write what is new since the last snapshot; return whether it is on disk."""
        return await self._snapshotter.take()

    def start_snapshot(self) -> None:
        """Have a snapshot taken now. Raises `ConflictError` while one is."""
        if self._snapshotter.running or self._snapshot_wanted.is_set():
            raise ConflictError("a snapshot is being taken", "snapshot_running")
        self._snapshot_wanted.set()

    async def _snapshot_at_intervals(self) -> None:
        wanted = self._snapshot_wanted
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.settings.snapshot_interval_seconds):
                    await wanted.wait()
            if self._closing.is_set():
                return
            await self.snapshot()
            wanted.clear()

    def stop(self) -> None:
        """Refuse further requests, and let `run` end once those that wait are answered."""
        self.phase = "stopping"
        self._closing.set()
        self._snapshot_wanted.set()  # to be seen by whoever waits for the next one
        self._recorder.stop()
        self._forgetter.stop()
        self.state.close()

    async def close(self) -> None:
        """Write a last snapshot, close the file. Raises `StorageError` when something is lost."""
        self.stop()
        restored = self.restored.duration_seconds is not None
        try:
            if restored and not await self.snapshot():
                raise StorageError(
                    f"the last snapshot failed ({self.snapshots.error}): what came after the one "
                    f"before is {self._kept_without_a_snapshot}"
                )
        finally:
            await self.store.close()  # its thread would keep the process alive

    @property
    def _kept_without_a_snapshot(self) -> str:
        return "lost" if self.settings.durability == "snapshot" else "in the journal alone"
