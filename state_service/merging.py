"""Background work, and which segments to merge when. Pure.

Why merge: a question looks into every segment, so their number is what it costs. Why not merge
all: a segment is dropped whole when its newest event leaves the window, so one that spans much
time keeps much that has expired. Hence time is cut into cells, a 32nd of the window each, and
only segments whose newest events lie in the same cell are merged: a window is then 33 segments,
give or take the young ones, and holds 3 % of what has expired at most.

Why not merge at once: each merge writes every event again. Within the cell that events arrive in,
segments wait until there are eight; once a later cell has begun, they become one. What arrives
later still joins when it amounts to an eighth of the largest. So an event is merged once or
twice, and O(log n) times at worst.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from state_service.memtable import PendingRun
from state_service.segment import Segment

CELLS_A_WINDOW = 32
_FAN_IN = 8
_RATIO = 8
_MAX_EVENTS = 1 << 19  # bounds what one merge takes, whatever the traffic


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """Make one segment of some immutable runs. `run` is pure: any thread may call it.

    Runs are sorted, several are merged; or one segment is written again `without` some slots.
    """

    number: int
    inputs: tuple[PendingRun | Segment, ...]
    without: NDArray[np.int32] | None = None  # slots of which nothing is to be left

    def run(self) -> Segment | None:
        """Return the segment, None if it is empty. O(events); numpy lets other threads run."""
        if self.without is not None:
            (segment,) = self.inputs
            assert isinstance(segment, Segment)
            return segment.without(self.without, self.number)
        columns = [part.columns() for part in self.inputs]
        if len(columns) == 1:
            return Segment.build(self.number, *columns[0])
        slots, timestamps, scores = map(np.concatenate, zip(*columns, strict=True))
        return Segment.build(self.number, slots, timestamps, scores)


def choose(segments: Sequence[Segment], present: float, cell_seconds: float) -> tuple[Segment, ...]:
    """Return segments worth merging into one, none when there are none. O(segments log segments).

    Events arrive at about the timestamp `present`: cells before its own are past.
    """
    cells: defaultdict[float, list[Segment]] = defaultdict(list)
    for segment in segments:
        if len(segment) < _MAX_EVENTS:
            cells[segment.max_timestamp // cell_seconds].append(segment)
    present_cell = present // cell_seconds
    for cell, members in cells.items():
        members.sort(key=len)
        total = sum(map(len, members))
        while members and (
            total > _MAX_EVENTS or len(members[-1]) > _RATIO * (total - len(members[-1]))
        ):
            total -= len(members.pop())
        if len(members) >= (2 if cell < present_cell else _FAN_IN):
            return tuple(members)
    return ()
