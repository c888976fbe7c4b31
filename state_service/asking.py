"""What may be asked of the windows, and of which time: the questions are taken down here. Pure.

How a question is answered is told in `questions.py`, what a window is in `windows.py`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from state_service.errors import HistoryError
from state_service.event_clock import EventClock
from state_service.event_store import EventStore
from state_service.questions import (
    AllMediansQuestion,
    Interval,
    MedianColumns,
    MediansQuestion,
    Question,
)
from state_service.segment import Segment
from state_service.statistics import Summary


@dataclass(frozen=True, slots=True)
class WindowRules:
    """What a window is; times in seconds."""

    window_seconds: float = 300.0
    max_future_seconds: float = 60.0
    history_seconds: float = 300.0
    clock: Literal["wall", "event"] = "wall"
    max_live_events: int = 50_000_000
    max_active_users: int = 5_000_000
    memtable_events: int = 65_536


class Asking:
    """What is held, as far as it can be asked for; `Windows` changes it."""

    def __init__(self, rules: WindowRules) -> None:
        self.rules = rules
        self._store = EventStore(rules.memtable_events)
        self.event_clock = EventClock(rules.window_seconds) if rules.clock == "event" else None
        self._kept_seconds = rules.window_seconds + rules.history_seconds
        self._dropped: dict[str, Interval] = {}  # of users that were alone, far ahead of others

    # --- what is held -------------------------------------------------------------------------

    @property
    def live_events(self) -> int:
        """Scores held in memory. O(1)."""
        return self._store.live_events

    @property
    def newest_timestamp(self) -> float:
        """The newest timestamp accepted so far, minus infinity before. O(1)."""
        return self._store.newest_timestamp

    @property
    def active_users(self) -> int:
        """Users with a score held; those just gone count until `expire` lets them go. O(1)."""
        return len(self._store.users)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The sealed segments, by their newest timestamp. O(1)."""
        return self._store.segments

    @property
    def sealed(self) -> bool:
        """Whether all events are in segments, and each is somebody's. O(segments)."""
        return self._store.sealed

    @property
    def array_bytes(self) -> int:
        """Size of all arrays in bytes; user ids and their dictionary not included. O(segments)."""
        return self._store.array_bytes

    def user_id_bytes(self) -> int:
        """Return the size of the user ids and their dictionary in bytes. O(users)."""
        return self._store.users.id_bytes()

    def user_ids(self, segment: Segment) -> list[str]:
        """Return the ids of a held segment's users, in the order of its runs. O(users)."""
        return self._store.users.names(segment.slots)

    # --- time ---------------------------------------------------------------------------------

    def reference(self, now: float) -> float:
        """Return the time windows end at: `now`, or what the event clock says."""
        return now if self.event_clock is None else self.event_clock.time

    def confirmed(self, now: float) -> float:
        """Return the time that decides what is kept: it does not follow one user alone."""
        return now if self.event_clock is None else self.event_clock.confirmed

    # --- questions ----------------------------------------------------------------------------

    def question(
        self,
        user_id: str,
        now: float,
        window_seconds: float | None = None,
        at: float | None = None,
        quantiles: Sequence[float] = (),
    ) -> Question:
        """Take down a question about one user's window; an unknown user's is empty.

        Raises `HistoryError` when `at` reaches further back than scores are kept. O(memtable +
        pending events), 0.2 ns each.
        """
        interval = self._interval(now, window_seconds, at)
        return self._question(user_id, interval, quantiles, mean=True)

    def median_question(
        self,
        user_id: str,
        now: float,
        window_seconds: float | None = None,
        at: float | None = None,
    ) -> Question:
        """Take down a `question` without the mean, which alone has to look at every score."""
        interval = self._interval(now, window_seconds, at)
        return self._question(user_id, interval, (), mean=False)

    def between_question(
        self, user_id: str, now: float, since: float | None, until: float | None
    ) -> Question:
        """Take down a question about a user's scores of any time that is kept, both ends inside.

        By default from the oldest kept, and to the newest. Raises `HistoryError` when `since` or
        `until` lies before what is kept. O(memtable + pending events).
        """
        horizon = self._horizon(now)
        for name, moment in (("since", since), ("until", until)):
            if moment is not None and moment < horizon:
                raise HistoryError(
                    f"{name}={moment:.3f} lies before what is kept, from {horizon:.3f} on: ask for "
                    f"{name}={math.ceil(horizon) + 1} or later (or raise the setting "
                    "history_seconds)"
                )
        asked = Interval(horizon if since is None else since, math.inf if until is None else until)
        if user_id in self._dropped:
            self._require_kept(asked, [self._dropped[user_id]])
        return self._question(user_id, asked, (), mean=False)

    def summary(
        self,
        user_id: str,
        now: float,
        window_seconds: float | None = None,
        at: float | None = None,
        quantiles: Sequence[float] = (),
    ) -> Summary:
        """Ask a `question` and answer it at once."""
        return self.question(user_id, now, window_seconds, at, quantiles).answer()

    def medians_question(
        self,
        user_ids: Sequence[str],
        now: float,
        window_seconds: float | None = None,
        at: float | None = None,
    ) -> MediansQuestion:
        """Take down a question about many users, in their order; unknown users are empty.

        Raises `HistoryError` as `question` does. O(n + memtable).
        """
        interval = self._interval(now, window_seconds, at)
        asked = self._store.users.find_many(user_ids)
        counts = np.where(asked < 0, 0, self._store.users.counts[asked])
        return MediansQuestion(asked, interval, self._store.snapshot(), counts, int(counts.sum()))

    def medians(
        self,
        user_ids: Sequence[str],
        now: float,
        window_seconds: float | None = None,
        at: float | None = None,
    ) -> MedianColumns:
        """Ask a `medians_question` and answer it at once."""
        return self.medians_question(user_ids, now, window_seconds, at).answer()

    def all_medians_question(
        self, now: float, window_seconds: float | None = None, at: float | None = None
    ) -> AllMediansQuestion:
        """Take down a question about everybody. O(users + memtable), a few ns each."""
        interval = self._interval(now, window_seconds, at)
        return AllMediansQuestion(
            self._store.users.ids.copy(),
            list(self._store.users.detached),
            interval,
            self._store.snapshot(),
            self._store.live_events,
        )

    # --- inside -------------------------------------------------------------------------------

    def _horizon(self, now: float) -> float:
        """Return the oldest timestamp that a question may still reach."""
        return self.reference(now) - self._kept_seconds

    @staticmethod
    def _require_kept(asked: Interval, dropped: Iterable[Interval]) -> None:
        """Raise `HistoryError` when some scores of the time asked for have been dropped."""
        for gap in dropped:
            if asked.high > gap.low and asked.low < gap.high:
                raise HistoryError(
                    f"scores from {gap.low:.3f} to {gap.high:.3f} have been dropped: a user alone "
                    "was that far ahead of all others; ask for what lies before or after"
                )

    def _interval(self, now: float, window_seconds: float | None, at: float | None) -> Interval:
        """Return the timestamps asked for."""
        length = self.rules.window_seconds if window_seconds is None else window_seconds
        end = self.reference(now) if at is None else at
        low, horizon = end - length, self._horizon(now)
        if low < horizon:
            raise HistoryError(
                f"at={end:.3f} with window={length:g} asks for scores from {low:.3f} on, but they "
                f"are kept from {horizon:.3f} on: ask for at={math.ceil(horizon + length) + 1} or "
                "later, or for a shorter window (or raise the setting history_seconds)"
            )
        if at is not None:
            self._require_kept(Interval(low, end), self._dropped.values())
        return Interval(low, end + self.rules.max_future_seconds if at is None else end)

    def _question(
        self, user_id: str, interval: Interval, quantiles: Sequence[float], *, mean: bool
    ) -> Question:
        store = self._store
        slot = store.users.find(user_id)
        if slot < 0:
            return Question(slot, interval, (), (), 0, quantiles, mean)
        loose = [rows for run in store.unsorted if len((rows := run.rows_of(slot)).scores)]
        size = int(store.users.counts[slot]) + sum(len(rows.scores) for rows in loose)
        return Question(slot, interval, store.segments, loose, size, quantiles, mean)
