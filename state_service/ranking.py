"""Everybody in order: the most active users, the highest and the lowest medians. Pure.

A ranking is of one moment, and any number of pages can be cut from it. A page begins after a
`Place`, a value and a user id, and not after a number of users: so it is right as well in a ranking
of a later moment, in which others have come and gone.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from state_service.questions import AllMediansQuestion, MedianColumns, MediansQuestion, Question
from state_service.segment import Segment

By = Literal["count", "median"]
Order = Literal["asc", "desc"]

_MANY_SCORES = 1_000  # of a user: beyond, to select the median pays


@dataclass(frozen=True, slots=True)
class Ranked:
    """One user's window."""

    user_id: str
    median: float
    count: int
    newest_timestamp: float


class Place(NamedTuple):
    """Where in a ranking a user stands, whether or not there is one: equals by id, ascending."""

    value: float
    user_id: str


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Users with a score in the window: `slots`, `values` that rank them, `counts`, each [n]."""

    by: By
    everybody: AllMediansQuestion
    slots: NDArray[np.int32]
    values: NDArray[np.float64]
    counts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.slots)

    def of_at_least(self, min_count: int) -> "Ranking":
        """Leave out users with fewer scores. O(n)."""
        if min_count <= 1:
            return self
        kept = np.flatnonzero(self.counts >= min_count)
        return Ranking(
            self.by, self.everybody, self.slots[kept], self.values[kept], self.counts[kept]
        )

    def first(self, k: int, order: Order) -> list[Ranked]:
        """Return k users quickly: of several with the last one's value, any. O(n)."""
        keys = self._keys(order)
        if k < len(keys):
            last = np.partition(keys, k - 1)[k - 1]
            before = np.flatnonzero(keys < last)
            places = np.concatenate([before, np.flatnonzero(keys == last)[: k - len(before)]])
        else:
            places = np.arange(len(keys))
        return self._answer(sorted(self._named(keys, places))[:k])

    def page(self, k: int, order: Order, after: Place | None = None) -> list[Ranked]:
        """Return the next k users after a place. O(n), and more where many have one value."""
        keys = self._keys(order)
        begin = (-np.inf, "") if after is None else (self._sign(order) * after.value, after.user_id)
        places = np.flatnonzero(keys >= begin[0])
        wanted = k + int(np.count_nonzero(keys[places] == begin[0]))
        if wanted < len(places):
            last = np.partition(keys[places], wanted - 1)[wanted - 1]
            places = places[keys[places] <= last]
        following = (row for row in self._named(keys, places) if row[:2] > begin)
        return self._answer(heapq.nsmallest(k, following))  # others get a turn meanwhile

    def place_of(self, user: Ranked) -> Place:
        """Return where a user stands, for the page after it."""
        return Place(user.count if self.by == "count" else user.median, user.user_id)

    @staticmethod
    def _sign(order: Order) -> int:
        return 1 if order == "asc" else -1

    def _keys(self, order: Order) -> NDArray[np.float64]:
        """Return what ascends in the wanted order."""
        return self._sign(order) * self.values

    def _named(
        self, keys: NDArray[np.float64], places: NDArray[np.intp]
    ) -> Iterable[tuple[float, str, int]]:
        slots = self.slots[places]
        return zip(keys[places].tolist(), self.everybody.names(slots), slots.tolist(), strict=True)

    def _answer(self, rows: list[tuple[float, str, int]]) -> list[Ranked]:
        slots = np.array([slot for _, _, slot in rows], np.int32)
        counts = self.counts[self.slots.searchsorted(slots)]
        columns = self._medians_of(slots, counts)
        return [
            Ranked(user_id, median, count, newest)
            for (_, user_id, _), median, count, newest in zip(
                rows, *(column.tolist() for column in columns), strict=True
            )
        ]

    def _medians_of(self, slots: NDArray[np.int32], counts: NDArray[np.int64]) -> MedianColumns:
        """Answer for some: all with few scores at once, each of the others by selection."""
        interval, runs = self.everybody.interval, self.everybody.runs
        medians, newest = np.empty(len(slots)), np.empty(len(slots))
        few = np.flatnonzero(counts <= _MANY_SCORES)
        together = MediansQuestion(slots[few], interval, runs, np.ones_like(slots[few]), 0).answer()
        medians[few], newest[few] = together.medians, together.newest
        segments = [run for run in runs if isinstance(run, Segment)]
        unsorted = [run for run in runs if not isinstance(run, Segment)]
        for place in np.flatnonzero(counts > _MANY_SCORES).tolist():
            slot, size = int(slots[place]), int(counts[place])
            loose = [rows for run in unsorted if len((rows := run.rows_of(slot)).scores)]
            summary = Question(slot, interval, segments, loose, size, (), mean=False).answer()
            medians[place], newest[place] = summary.median, summary.newest_timestamp
        return MedianColumns(medians, counts, newest)


@dataclass(frozen=True, slots=True, eq=False)
class RankingQuestion:
    """About everybody's place."""

    by: By
    everybody: AllMediansQuestion

    @property
    def size(self) -> int:
        """Scores held, of all users."""
        return self.everybody.size

    def answer(self) -> Ranking:
        """Rank. By count O(segments' users), by median O(scores held)."""
        if self.by == "count":
            slots, counts = self.everybody.counted()
            return Ranking(self.by, self.everybody, slots, counts.astype(np.float64), counts)
        slots, columns = self.everybody.columns()
        return Ranking(self.by, self.everybody, slots, columns.medians, columns.counts)


@dataclass(frozen=True, slots=True)
class PageQuestion:
    """About one page of a ranking: `size` users have to be looked at."""

    ranking: Ranking
    limit: int
    order: Order
    after: Place | None
    min_count: int

    @property
    def size(self) -> int:
        """Users ranked."""
        return len(self.ranking)

    def answer(self) -> list[Ranked]:
        """Cut it."""
        return self.ranking.of_at_least(self.min_count).page(self.limit, self.order, self.after)
