"""User ids as small integers, for as long as the user has a score. Pure.

Arrays cannot hold strings cheaply, so each active user has a *slot*: an index into arrays. A user
whose last score is gone loses the slot and the next newcomer gets it. Newcomers take the lowest
free slots, so that after a rush the high ones fall empty and the arrays can be cut; Python's
dictionaries and lists do not give memory back by themselves, so they are rebuilt when they have
become far too large.

A user who is to be forgotten is *detached* from the slot at once: the id is nowhere any more, and
should the user come again, that is a newcomer. The slot stays taken, nobody's, until the owner has
removed the events that lie under it.
"""

import sys
from collections import deque
from collections.abc import Sequence
from itertools import repeat
from operator import itemgetter
from struct import pack
from typing import cast

import numpy as np
from numpy.typing import NDArray

_LEAST_SLOTS = 1024
_SPARE_SLOTS = 1024  # newcomers served by one search for free slots
_SEARCHED = 65_536  # slots looked at in one step of it
_NO_SLOTS = np.empty(0, np.intp)


class UserTable:
    """Who has which slot, and `counts` int32 [capacity]: events by slot, kept by the owner.

    An id's first mention gives it a slot; `release` takes slots back.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(_LEAST_SLOTS, np.int32)
        self.ids: list[str | None] = [None] * _LEAST_SLOTS  # by slot; None while it is free
        self._free = np.ones(_LEAST_SLOTS, bool)
        self._lowest_free = 0  # no slot below is free
        self._spare: list[int] = []  # the lowest free ones, highest first
        self._slot_of: dict[str, int] = {}
        self._most = 0  # ids in the dictionary since it was built
        self.detached: set[int] = set()  # slots that are nobody's and not free yet

    def __len__(self) -> int:
        return len(self._slot_of)

    @property
    def capacity(self) -> int:
        """Slots there are room for, taken or free."""
        return len(self.counts)

    @property
    def array_bytes(self) -> int:
        """Size of the arrays in bytes; ids, their list and the dictionary not included."""
        return self.counts.nbytes + self._free.nbytes

    def id_bytes(self) -> int:
        """Return the size in bytes of the ids, their list, their dictionary and its numbers.

        O(users): for reports, not for every request.
        """
        strings = sum(map(sys.getsizeof, self._slot_of))
        numbers = sys.getsizeof(1 << 29) * len(self._slot_of)
        return strings + numbers + sys.getsizeof(self.ids) + sys.getsizeof(self._slot_of)

    def find(self, user_id: str) -> int:
        """Return a user's slot, -1 for one without. O(1)."""
        return self._slot_of.get(user_id, -1)

    def find_many(self, user_ids: Sequence[str]) -> NDArray[np.int32]:
        """Return each one's slot, -1 for users without one. O(n)."""
        found = map(self._slot_of.get, user_ids, repeat(-1))
        return np.fromiter(found, np.int32, len(user_ids))

    def names(self, slots: NDArray[np.int32]) -> list[str]:
        """Return the ids of slots that users have. O(n)."""
        return cast("list[str]", list(map(self.ids.__getitem__, slots.tolist())))

    def taken_slots(self) -> set[int]:
        """Return all slots that are not free. O(users)."""
        return self.detached.union(self._slot_of.values())

    def without_events(self, slots: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return which of these slots are taken by users with no event in segments, each once.

        O(n), and 0.1 ns for each slot there is.
        """
        slots = slots[slots < self.capacity]
        idle = np.zeros(self.capacity, bool)
        idle[slots] = ~self._free[slots] & (self.counts[slots] == 0)
        return idle.nonzero()[0].astype(np.int32)

    def detach(self, user_id: str) -> int:
        """Let go of an id for good; return its slot, which is nobody's from now on. O(1)."""
        slot = self._slot_of.pop(user_id)
        self.ids[slot] = None
        self.detached.add(slot)
        return slot

    def newcomers(self, user_ids: Sequence[str]) -> int:
        """Count the distinct ids without a slot. O(n)."""
        return len(set(user_ids) - self._slot_of.keys())

    def intern(self, user_ids: Sequence[str]) -> NDArray[np.int32]:
        """Return each one's slot, int32 [n], n >= 1; newcomers get one. O(n)."""
        try:
            return self._look_up(user_ids)
        except KeyError:  # newcomers are among them
            for user_id in user_ids:
                if user_id not in self._slot_of:
                    self._slot_of[user_id] = self._take_slot(user_id)
            return self._look_up(user_ids)

    def _look_up(self, user_ids: Sequence[str]) -> NDArray[np.int32]:
        if len(user_ids) == 1:
            return np.array([self._slot_of[user_ids[0]]], np.int32)
        # Two calls for all ids, without a step of Python for each: 20 + 10 ns an id.
        slots = itemgetter(*user_ids)(self._slot_of)
        column: NDArray[np.int32] = np.frombuffer(pack(f"{len(slots)}i", *slots), np.int32)
        return column

    def _take_slot(self, user_id: str) -> int:
        if not self._spare:
            self._refill()
        slot = self._spare.pop()
        self._free[slot] = False
        self.ids[slot] = user_id
        return slot

    def release(self, slots: NDArray[np.int32]) -> None:
        """Take back the slots under which no score is left. O(n), and rarely O(users)."""
        if not len(slots):
            return
        self._most = max(self._most, len(self._slot_of))
        named = slots
        if self.detached:
            leaving = set(slots.tolist())
            named = np.array(list(leaving - self.detached), np.int32)
            self.detached -= leaving
        deque(map(self._slot_of.__delitem__, self.names(named)), maxlen=0)
        for slot in slots.tolist():
            self.ids[slot] = None
        self._free[slots] = True
        self._lowest_free = min(self._lowest_free, int(slots.min()), *self._spare[-1:])
        self._spare.clear()
        self._shrink()

    def _refill(self) -> None:
        begin, free = self._lowest_free, _NO_SLOTS
        while not len(free):
            if begin >= self.capacity:
                self._grow()
            free = self._free[begin : begin + _SEARCHED].nonzero()[0][:_SPARE_SLOTS] + begin
            begin = min(begin + _SEARCHED, self.capacity)
        self._lowest_free = int(free[-1]) + 1
        self._spare = free[::-1].tolist()

    def _grow(self) -> None:
        more = max(_LEAST_SLOTS, self.capacity // 4)
        self.counts = np.append(self.counts, np.zeros(more, np.int32))
        self._free = np.append(self._free, np.ones(more, bool))
        self.ids.extend([None] * more)

    def _shrink(self) -> None:
        """Give memory back once four times as much is held as is needed."""
        if len(self._slot_of) < self._most // 4:
            self._slot_of = dict(self._slot_of)
            self._most = len(self._slot_of)
        if len(self._slot_of) < self.capacity // 4:
            highest = (~self._free).nonzero()[0][-1:]
            taken = int(highest[0]) + 1 if len(highest) else 0
            wanted = max(_LEAST_SLOTS, taken + taken // 4)
            if wanted <= self.capacity // 2:
                self.counts = self.counts[:wanted].copy()
                self._free = self._free[:wanted].copy()
                del self.ids[wanted:]

    def check(self) -> None:
        """Assert every invariant."""
        taken = {slot: user_id for slot, user_id in enumerate(self.ids) if user_id is not None}
        assert taken == {slot: user_id for user_id, slot in self._slot_of.items()}
        assert len(self.counts) == len(self._free) == len(self.ids)
        free = set(np.flatnonzero(self._free).tolist())
        assert not self.detached & taken.keys(), "a slot is somebody's or nobody's"
        assert free == set(range(self.capacity)) - taken.keys() - self.detached
        assert self._spare == sorted(self._spare, reverse=True)
        assert {slot for slot in free if slot < self._lowest_free} == set(self._spare)
        assert (self.counts >= 0).all()
        assert not self.counts[self._free].any()
