"""What must be held after all that, and whether it is. Pure.

An event is found again by its timestamp, which no other event has. What was acknowledged must be
there once, with its score. A request that never was acknowledged may be there or not, but wholly.
Then every user's answers must be those of just these events, to the last bit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chaos.book import Issued

_EXAMPLES = 10


@dataclass(frozen=True, slots=True)
class UserAnswer:
    """What the state service says about a user's window; nothing but the count when it is empty."""

    count: int
    min: float | None
    max: float | None
    median: float | None


class Held(NamedTuple):
    """Events on disk, as columns of n; a user that is none of ours is -1."""

    users: NDArray[np.int32]
    timestamps: NDArray[np.float64]
    scores: NDArray[np.float64]


@dataclass(slots=True)
class Verdict:
    """How many events are not as they must be, how many users are answered wrongly.

    `torn` counts requests that are there in part, `foreign` events that nobody sent.
    """

    events: int = 0
    users: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    foreign: int = 0
    torn: int = 0
    users_wrong: int = 0
    unacknowledged_requests: int = 0
    of_them_counted: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def right(self) -> bool:
        """Whether there is nothing to complain about."""
        return not (
            self.lost or self.doubled or self.wrong or self.foreign or self.torn or self.users_wrong
        )


def judge(issued: Issued, held: Held, answers: Mapping[int, UserAnswer]) -> Verdict:
    """Compare what was sent with what is on disk and with each user's answers.

    A user without an answer is not compared. Raises ValueError when two events sent have the same
    timestamp: they could not be told apart.
    """
    order = np.argsort(issued.timestamps, kind="stable")
    timestamps, users = issued.timestamps[order], issued.users[order]
    scores, acknowledged = issued.scores[order], issued.acknowledged[order]
    if len(timestamps) > 1 and not (np.diff(timestamps) > 0).all():
        raise ValueError("two events have the same timestamp")
    place = np.minimum(np.searchsorted(timestamps, held.timestamps), max(0, len(timestamps) - 1))
    if len(timestamps):
        ours = (timestamps[place] == held.timestamps) & (users[place] == held.users)
    else:
        ours = np.zeros(len(held.timestamps), np.bool_)
    times_found = np.bincount(place[ours], minlength=len(timestamps))
    there = times_found > 0
    misscored = ours.copy()
    misscored[ours] = scores[place[ours]] != held.scores[ours]

    verdict = Verdict(events=len(timestamps), users=len(answers))
    lost = acknowledged & ~there
    verdict.lost = int(lost.sum())
    verdict.doubled = int((times_found - 1).clip(min=0).sum())
    verdict.wrong = int(misscored.sum())
    verdict.foreign = int((~ours).sum())
    verdict.examples += _examples("lost", timestamps[lost], users[lost])
    verdict.examples += _examples("doubled", timestamps[times_found > 1], users[times_found > 1])
    verdict.examples += _examples("wrong", held.timestamps[misscored], held.users[misscored])
    verdict.examples += _examples("foreign", held.timestamps[~ours], held.users[~ours])
    _judge_unacknowledged(verdict, issued.request[order][~acknowledged], there[~acknowledged])
    counts = acknowledged | there
    _judge_answers(verdict, users[counts], scores[counts], answers)
    return verdict


def _examples(
    what: str, timestamps: NDArray[np.float64], users: NDArray[np.int32]
) -> Iterator[str]:
    for timestamp, user in zip(timestamps[:_EXAMPLES], users[:_EXAMPLES], strict=True):
        yield f"{what}: the event of user {user} at {float(timestamp)!r}"


def _judge_unacknowledged(
    verdict: Verdict, requests: NDArray[np.int64], there: NDArray[np.bool_]
) -> None:
    """Nobody was told that these count, or that they do not: each is all there, or not at all."""
    numbers, member = np.unique(requests, return_inverse=True)
    events = np.bincount(member, minlength=len(numbers))
    found = np.bincount(member[there], minlength=len(numbers))
    torn = (found > 0) & (found < events)
    verdict.unacknowledged_requests = len(numbers)
    verdict.of_them_counted = int((found > 0).sum())
    verdict.torn = int(torn.sum())
    verdict.examples += [
        f"torn: {of} of the {all_of} events of request {number}"
        for number, of, all_of in zip(
            numbers[torn][:_EXAMPLES],
            found[torn][:_EXAMPLES],
            events[torn][:_EXAMPLES],
            strict=True,
        )
    ]


def _judge_answers(
    verdict: Verdict,
    users: NDArray[np.int32],
    scores: NDArray[np.float64],
    answers: Mapping[int, UserAnswer],
) -> None:
    order = np.lexsort((scores, users))
    users, scores = users[order], scores[order]
    for user, answer in answers.items():
        begin, end = np.searchsorted(users, [user, user + 1])
        expected = expected_answer(scores[begin:end])
        if answer != expected:
            verdict.users_wrong += 1
            if verdict.users_wrong <= _EXAMPLES:
                verdict.examples.append(f"user {user}: answered {answer}, expected {expected}")


def expected_answer(ascending: NDArray[np.float64]) -> UserAnswer:
    """Answer about a window of these scores, which ascend."""
    count = len(ascending)
    if not count:
        return UserAnswer(0, None, None, None)
    low, high = float(ascending[(count - 1) // 2]), float(ascending[count // 2])
    median = low if count % 2 else (low + high) / 2
    return UserAnswer(count, float(ascending[0]), float(ascending[-1]), median)
