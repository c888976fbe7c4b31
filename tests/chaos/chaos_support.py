"""Books and answers for tests that start nothing."""

import numpy as np
from numpy.typing import NDArray

from chaos.book import Book, Issued
from chaos.oracle import Held, UserAnswer, expected_answer

NOW = 1_795_000_000.0


def sums(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Score as the sum of the features: as good as any model."""
    return np.asarray(features.sum(axis=1), np.float64)


def some_book(users: int = 5, events: int = 4, seed: int = 3) -> Book:
    return Book(seed, users, events, sums, "u")


def everything_held(issued: Issued) -> Held:
    """Return what is on disk when every event sent was counted, in no particular order."""
    order = np.random.default_rng(0).permutation(len(issued.users))
    return Held(issued.users[order], issued.timestamps[order], issued.scores[order])


def without(held: Held, *places: int) -> Held:
    return picked(held, *np.delete(np.arange(len(held.users)), places))


def picked(held: Held, *places: int) -> Held:
    rows = np.array(places, np.intp)
    return Held(held.users[rows], held.timestamps[rows], held.scores[rows])


def answers_to(held: Held, users: int) -> dict[int, UserAnswer]:
    """Answer for each user as a service that holds this does."""
    return {
        user: expected_answer(np.sort(held.scores[held.users == user])) for user in range(users)
    }
