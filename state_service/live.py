"""What a process holds in memory: windows, batch keys, and how far the journal is applied.

The rules
---------
1. Everything here is changed on the event loop's thread, between two awaits: a reader on the loop
   sees a group of batches entirely or not at all.
2. `sequence` is the last group applied. It, the windows and the keys always belong together.
3. Whoever needs them to stand still across an await holds `changing`: the recorder while it judges
   and while it applies, a snapshot while it closes the memtable and takes the segments.
4. The recorder holds `recording` from judging a group to having applied it: whoever must not meet
   a group on its way, to forget a user say, holds it too. `recording` is taken before `changing`.
5. Sorting and merging run in threads, on arrays that nobody changes any more, one piece at a
   time. A piece that is not brought to its end is taken back.
"""

import asyncio
import math
from dataclasses import dataclass, field

from state_service.batch_keys import BatchKeys
from state_service.formats import Group
from state_service.merging import Work
from state_service.segment import Segment
from state_service.settings import Settings
from state_service.tombstones import Tombstones
from state_service.windows import WindowRules, Windows


@dataclass(slots=True)
class LiveState:
    """Windows, keys and the sequence number that they stand at; who has been forgotten."""

    windows: Windows
    keys: BatchKeys
    tombstones: Tombstones
    sequence: int = 0
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    recording: asyncio.Lock = field(default_factory=asyncio.Lock)
    _settling: asyncio.Lock = field(default_factory=asyncio.Lock)
    _grown: asyncio.Event = field(default_factory=asyncio.Event)
    _closed: bool = False

    @classmethod
    def empty(cls, settings: Settings) -> "LiveState":
        """Return the state of a service that has seen nothing."""
        rules = WindowRules(
            settings.window_seconds,
            settings.max_future_seconds,
            settings.history_seconds,
            settings.clock,
            settings.max_live_events,
            settings.max_active_users,
        )
        # An event may lie max_future ahead: its key must live as long as it can be asked for.
        retention_seconds = settings.window_seconds + settings.max_future_seconds
        tombstones = Tombstones(settings.forget_replays_seconds, settings.max_forgotten_users)
        keys = BatchKeys(retention_seconds, settings.max_batch_keys)
        return cls(Windows(rules), keys, tombstones)

    def expire(self, now: float) -> None:
        """Forget what no question and no repeated batch can reach any more."""
        self.windows.expire(now)
        # By the windows' confirmed time, so that a key lives as long as the events it counted.
        self.keys.expire(self.windows.confirmed(now))

    def keys_horizon(self, now: float) -> float:
        """Return the time before which a key is forgotten."""
        return self.keys.horizon(self.windows.confirmed(now))

    def apply(self, sequence: int, group: Group) -> None:
        """Take a group whose events have been judged: the only way in. Never refuses."""
        if group.user_ids:
            self.windows.append(group.user_ids, group.timestamps, group.scores)
        clock = self.windows.event_clock
        event_time = None if clock is None else clock.confirmed
        for seen in group.seen_keys(event_time):
            self.keys.add(seen, math.inf if event_time is None else event_time)
        self.sequence = sequence
        self._grown.set()

    async def settle(self) -> None:
        """Sort and merge, in a thread, all that waits for it."""
        while True:
            async with self._settling:
                if (work := self.windows.next_work()) is None:
                    return
                await self._do(work)

    async def seal(self) -> tuple[Segment, ...]:
        """Close the memtable, sort and clean; return the segments: all there is.

        For whoever holds `changing`. Merging can wait.
        """
        windows = self.windows
        windows.freeze()
        while True:
            async with self._settling:  # the piece that ran until now may have been the last
                if windows.sealed:
                    return windows.segments
                work = windows.next_work()
                assert work is not None, "what is not sorted or clean is waiting to be"
                await self._do(work)

    async def _do(self, work: Work) -> None:
        try:
            segment = await asyncio.to_thread(work.run)
        except BaseException:  # or its events would never be in a segment, nor in a snapshot
            self.windows.abandon(work)
            raise
        self.windows.finish(work, segment)

    async def keep_settled(self) -> None:
        """Settle whenever something has come in, until `close`."""
        while not self._closed:
            await self._grown.wait()
            self._grown.clear()
            await self.settle()

    def close(self) -> None:
        """Let `keep_settled` end."""
        self._closed = True
        self._grown.set()
