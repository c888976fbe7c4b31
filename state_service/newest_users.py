"""Who has the newest events, and how new one user's are: what a replay's clock asks. Pure."""

from collections.abc import Iterable, Sequence
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from state_service.memtable import PendingRun
from state_service.segment import Segment


def newest_slots(
    runs: Iterable[Segment | PendingRun], detached: NDArray[np.int32]
) -> dict[int, float]:
    """Return the two slots with the newest timestamps, or fewer, newest first; none `detached`.

    O(events in the newest runs): older ones are not looked into.
    """
    newest: dict[int, float] = {}
    for run in sorted(runs, key=attrgetter("max_timestamp"), reverse=True):
        if len(newest) == 2 and run.max_timestamp <= min(newest.values()):
            break
        if not len(run):
            continue
        slots, timestamps, _ = run.columns()
        theirs = ~np.isin(slots, detached)
        for _ in range(2):  # a user is among the two of all only if among the two of its run
            if not theirs.any():
                break
            place = int(np.where(theirs, timestamps, -np.inf).argmax())
            slot = int(slots[place])
            newest[slot] = max(newest.get(slot, -np.inf), float(timestamps[place]))
            theirs &= slots != slot
        newest = dict(sorted(newest.items(), key=lambda user: -user[1])[:2])
    return newest


def newest_timestamp_of(
    slot: int, segments: Sequence[Segment], unsorted: Iterable[PendingRun]
) -> float:
    """Return a slot's newest timestamp, minus infinity for none; segments by newest, ascending.

    O(unsorted events + segments log users + the slot's events in the newest of them).
    """
    newest = -np.inf
    for run in unsorted:
        newest = max(newest, float(run.rows_of(slot).timestamps.max(initial=-np.inf)))
    for segment in reversed(segments):
        if segment.max_timestamp <= newest:
            break
        begin, end = segment.runs.find(slot)
        if begin < end:
            newest = max(newest, segment.packed_timestamps.newest(slice(begin, end)))
    return newest
