"""Who has been forgotten lately, without saying who: against replays of what came before. Pure.

A producer may hold events back, while this service is down say, and hand them in later. Those of a
user who has been forgotten meanwhile must not bring the user back. So a keyed hash of the id is
kept, with the time of forgetting, and what a producer received at or before that time is left out.

The hash is BLAKE2b with a random key that belongs to the database. It cannot be turned back into an
id, nor compared with another database's; who has the file can tell whether an id that he has is
among them.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import islice

import numpy as np
from numpy.typing import NDArray

HASH_BYTES = 16


class Tombstones:
    """Hashes of forgotten users by time of forgetting; the oldest make room for new ones.

    Without any, or for batches received after the last forgetting, `concern` is all it costs.
    """

    def __init__(self, keep_seconds: float, max_users: int, hash_key: bytes = b"") -> None:
        self.hash_key = hash_key
        self._keep_seconds = keep_seconds
        self._max_users = max_users
        self._forgotten_at: dict[bytes, float] = {}  # by hash, in order of forgetting
        self._newest = -np.inf

    def __len__(self) -> int:
        return len(self._forgotten_at)

    def hash(self, user_id: str) -> bytes:
        """Return what stands for an id. O(bytes), about a microsecond."""
        return blake2b(
            user_id.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES, key=self.hash_key
        ).digest()

    def horizon(self, now: float) -> float:
        """Return the time before which a forgetting is itself forgotten."""
        return now - self._keep_seconds

    def expire(self, now: float) -> None:
        """Drop the tombstones that are old enough. O(1) each."""
        horizon = self.horizon(now)
        while self._forgotten_at:
            oldest = next(iter(self._forgotten_at))
            if self._forgotten_at[oldest] >= horizon:
                return
            del self._forgotten_at[oldest]
        self._newest = -np.inf

    def in_the_way(self, hashes: Iterable[bytes]) -> list[bytes]:
        """Return the oldest tombstones, which have to go before these can be added."""
        new = len(set(hashes) - self._forgotten_at.keys())
        surplus = len(self) + new - self._max_users
        return list(islice(self._forgotten_at, max(0, surplus)))

    def add(self, hashes: Iterable[bytes], forgotten_at: float) -> None:
        """Remember that these users were forgotten at this time. O(n)."""
        for user_hash in hashes:
            self._forgotten_at.pop(user_hash, None)
            self._forgotten_at[user_hash] = forgotten_at
            self._newest = max(self._newest, forgotten_at)
        for user_hash in list(islice(self._forgotten_at, max(0, len(self) - self._max_users))):
            del self._forgotten_at[user_hash]

    def concern(self, received_at: float | None) -> bool:
        """Tell whether a batch of that time may hold events of users forgotten since. O(1)."""
        return received_at is not None and received_at <= self._newest

    def find(self, user_ids: Sequence[str], received_at: float) -> NDArray[np.bool_]:
        """Say which events, received at that time, are of users forgotten since: bool [events].

        O(events), and a microsecond for each user. Changes nothing: any thread may call it while
        nothing is added.
        """
        before = {
            user_id: self._forgotten_at.get(self.hash(user_id), -np.inf) >= received_at
            for user_id in set(user_ids)
        }
        return np.fromiter(map(before.__getitem__, user_ids), np.bool_, len(user_ids))
