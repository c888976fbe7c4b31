"""Who has the newest events, and how new one user's are: what a replay's clock asks. Pure."""

from operator import attrgetter

import numpy as np

from state_service.event_store import EventStore


def newest_users(store: EventStore) -> list[tuple[str, float]]:
    """Return the two users with the newest timestamps held, or fewer, newest first.

    O(events in the newest runs): older ones are not looked into.
    """
    newest: dict[int, float] = {}
    detached = np.array(sorted(store.users.detached), np.int32)
    runs = sorted(store.snapshot(), key=attrgetter("max_timestamp"), reverse=True)
    for run in runs:
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
    names = store.users.names(np.array(list(newest), np.int32))
    return list(zip(names, newest.values(), strict=True))


def newest_timestamp_of(store: EventStore, user_id: str) -> float:
    """Return a user's newest timestamp held, minus infinity for none.

    O(unsorted events + segments log users + the user's events in the newest of them).
    """
    newest = -np.inf
    if (slot := store.users.find(user_id)) < 0:
        return newest
    for run in store.unsorted:
        newest = max(newest, float(run.rows_of(slot).timestamps.max(initial=-np.inf)))
    for segment in reversed(store.segments):
        if segment.max_timestamp <= newest:
            break
        begin, end = segment.runs.find(slot)
        if begin < end:
            newest = max(newest, segment.packed_timestamps.newest(slice(begin, end)))
    return newest
