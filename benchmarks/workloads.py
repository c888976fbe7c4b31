"""Seeded workloads: who scores what when. Pure numpy.

Each is a stream in event time at a constant rate: the first `live` events fill the window, all
later ones are timed, and each of those pushes about one out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW_SECONDS = 300.0
EPOCH = 1_795_000_000.0


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """n events: the columns of one request, and the users of the questions asked after it."""

    users: NDArray[np.int32]
    user_ids: list[str]
    timestamps: NDArray[np.float64]
    scores: NDArray[np.float64]
    now: float


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """`users` int32, `timestamps` and `scores` float64, all [events]; `live` of them fill it."""

    name: str
    live: int
    user_count: int
    users: NDArray[np.int32]
    timestamps: NDArray[np.float64]
    scores: NDArray[np.float64]
    batch_events: int = 500

    def batches(self, begin: int, end: int) -> Iterator[Batch]:
        """Cut events begin … end - 1 into requests.

        Each id is a string of its own, as a decoder makes them: its hash is not known yet.
        """
        for start in range(begin, end, self.batch_events):
            part = slice(start, min(start + self.batch_events, end))
            users = self.users[part]
            ids = [f"user-{user}" for user in users.tolist()]
            now = float(self.timestamps[part.stop - 1])
            yield Batch(users, ids, self.timestamps[part], self.scores[part], now)

    def true_median(self, user: int, taken: int) -> float | None:
        """Return the median by brute force once the first `taken` events have arrived."""
        users, times = self.users[:taken], self.timestamps[:taken]
        inside = (users == user) & (times >= times[-1] - WINDOW_SECONDS)
        scores = self.scores[:taken][inside]
        return float(np.median(scores)) if len(scores) else None


def _stream(name: str, live: int, users: NDArray[np.int32], user_count: int) -> Workload:
    times = EPOCH + np.arange(len(users), dtype=np.float64) * (WINDOW_SECONDS / live)
    scores = np.random.default_rng(user_count).random(len(users))
    return Workload(name, live, user_count, users, times, scores)


def zipf(live: int, timed: int, user_count: int = 10_000, name: str = "zipf") -> Workload:
    """Traffic by Zipf's law with exponent 1: the first of 10,000 users has a tenth of it."""
    dice = np.random.default_rng(1)
    share = np.cumsum(1 / np.arange(1, user_count + 1))
    ranks = np.searchsorted(share / share[-1], dice.random(live + timed))
    users = dice.permutation(user_count).astype(np.int32)[np.minimum(ranks, user_count - 1)]
    return _stream(name, live, users, user_count)


def one_user(live: int, timed: int) -> Workload:
    """One user has everything."""
    return _stream("one-user", live, np.zeros(live + timed, np.int32), 1)


def many_users(user_count: int, timed: int) -> Workload:
    """Three events live for each of very many users, on average."""
    users = np.random.default_rng(3).integers(0, user_count, 3 * user_count + timed, np.int32)
    return _stream("many-users", 3 * user_count, users, user_count)


WORKLOADS = ("zipf", "one-user", "many-users", "large")


def make_workload(name: str, *, quick: bool) -> Workload:
    """Return one of `WORKLOADS`; a quick one has a few thousand events."""
    match name:
        case "zipf":
            return zipf(4000, 2000, 50) if quick else zipf(1_500_000, 1_000_000)
        case "one-user":
            return one_user(6000, 2000) if quick else one_user(1_000_000, 500_000)
        case "many-users":
            return many_users(1000, 2000) if quick else many_users(500_000, 500_000)
        case "large":
            size = (8000, 2000) if quick else (10_000_000, 2_000_000)
            return zipf(*size, name="large")
    raise ValueError(name)
