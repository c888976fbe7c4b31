"""Every request that is sent and what must come of it. Pure; the clock is passed in.

Each event has a timestamp that no other event has, so wherever it turns up it can be told which
request it came from. Its score is known before it is sent, from the model itself and not from the
path that is tested.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from generator.encoding import encoder

FEATURES = 3
BLOCK_REQUESTS = 256
_FEATURE_DECIMALS = 6
_STEP_SECONDS = 1e-6  # float64 tells today's epoch seconds apart down to a quarter of that

Score = Callable[[NDArray[np.float32]], NDArray[np.float64]]


class Request(NamedTuple):
    """One request to send; `scores` has the right answer, shape (events,)."""

    number: int
    body: bytes
    scores: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Issued:
    """Events that were sent, as columns of n; `request` numbers what they were sent in."""

    users: NDArray[np.int32]
    timestamps: NDArray[np.float64]
    scores: NDArray[np.float64]
    request: NDArray[np.int64]
    acknowledged: NDArray[np.bool_]


class _Block:
    """The same number of requests, drawn and scored together; arrays of (requests, events)."""

    def __init__(self, seed: int, number: int, users: int, events: int, score: Score) -> None:
        random = np.random.default_rng([seed, number])
        shape = (BLOCK_REQUESTS, events)
        self.users = random.integers(users, size=shape, dtype=np.int32)
        self.features = np.round(random.standard_normal((*shape, FEATURES)), _FEATURE_DECIMALS)
        flat = self.features.astype(np.float32).reshape(-1, FEATURES)
        self.scores = score(flat).reshape(shape)
        self.timestamps = np.full(shape, np.nan)
        self.issued = 0
        self.acknowledged = np.zeros(BLOCK_REQUESTS, np.bool_)


class Book:
    """Makes requests of `events` events by `users` users, and remembers them."""

    def __init__(self, seed: int, users: int, events: int, score: Score, prefix: str) -> None:
        self._seed, self.users, self.events = seed, users, events
        self._score = score
        self._prefix = prefix
        self._encode = encoder("json")
        self._blocks: dict[int, _Block] = {}
        self._newest = 0.0
        self.requests = 0

    def user_id(self, user: int) -> str:
        """Name the user with this number."""
        return f"{self._prefix}-{user}"

    def user_of(self, user_id: str) -> int:
        """Return a user's number, -1 for somebody else's."""
        prefix, _, number = user_id.rpartition("-")
        return int(number) if prefix == self._prefix and number.isdigit() else -1

    def issue(self, now: float) -> Request:
        """Make the next request, its events stamped `now` (epoch seconds) and shortly after."""
        number = self.requests
        self.requests += 1
        block_number, row = divmod(number, BLOCK_REQUESTS)
        if block_number not in self._blocks:
            self._blocks[block_number] = _Block(
                self._seed, block_number, self.users, self.events, self._score
            )
        block = self._blocks[block_number]
        begin = max(now, self._newest + _STEP_SECONDS)
        timestamps = begin + np.arange(self.events, dtype=np.float64) * _STEP_SECONDS
        self._newest = float(timestamps[-1])
        block.timestamps[row] = timestamps
        block.issued = row + 1
        user_ids = [self.user_id(user) for user in block.users[row].tolist()]
        body = self._encode(user_ids, timestamps, block.features[row])
        return Request(number, body, block.scores[row])

    def acknowledge(self, number: int) -> None:
        """Note that a request was answered: its events count from now on."""
        block_number, row = divmod(number, BLOCK_REQUESTS)
        self._blocks[block_number].acknowledged[row] = True

    def forget(self, before: float) -> None:
        """Drop what is older and settled, a block of requests at a time."""
        for number, block in list(self._blocks.items()):
            if (
                block.issued == BLOCK_REQUESTS
                and block.acknowledged.all()
                and block.timestamps.max() < before
            ):
                del self._blocks[number]

    def issued(self, oldest: float = -np.inf) -> Issued:
        """Return the events from `oldest` on that are remembered, in the order of sending."""
        parts: list[Issued] = []
        for number, block in self._blocks.items():
            live = block.timestamps >= oldest  # not those still to be issued: NaN
            rows = np.nonzero(live)[0]
            parts.append(
                Issued(
                    block.users[live],
                    block.timestamps[live],
                    block.scores[live],
                    number * BLOCK_REQUESTS + rows,
                    block.acknowledged[rows],
                )
            )
        return Issued(
            np.concatenate([part.users for part in parts] or [np.empty(0, np.int32)]),
            np.concatenate([part.timestamps for part in parts] or [np.empty(0)]),
            np.concatenate([part.scores for part in parts] or [np.empty(0)]),
            np.concatenate([part.request for part in parts] or [np.empty(0, np.int64)]),
            np.concatenate([part.acknowledged for part in parts] or [np.empty(0, np.bool_)]),
        )
