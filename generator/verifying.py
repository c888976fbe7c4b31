"""Recompute every user's median from what was acknowledged, and compare with the service.

The oracle and the comparison are pure. The window is `at - window_seconds <= timestamp <= at`, the
median of `n` scores is the middle one or the mean of the two middle ones in float64, and both the
median and the count must be equal exactly: close is wrong.
"""

import asyncio
from dataclasses import dataclass

import aiohttp
import msgspec
import numpy as np
import numpy.typing as npt

from generator.client import payload
from generator.encoding import Floats
from generator.errors import UnverifiableError, why
from generator.ledger import Ledger
from generator.options import MEDIANS_PATH
from generator.outcomes import read_problem
from generator.workload import UserIndices, Workload

LOOKUP_USERS = 10_000
MISMATCHES_KEPT = 10
_TRIES = 3
_PAUSE_SECONDS = 0.25


class MedianItem(msgspec.Struct):
    """One user's item of the `/medians` answer, as far as it is compared."""

    user_id: str
    median: float | None
    count: int
    window_seconds: float


class _MediansAnswer(msgspec.Struct):
    items: list[MedianItem]


class Mismatch(msgspec.Struct):
    """One user on whom the service and the oracle differ."""

    user_id: str
    expected_median: float | None
    expected_count: int
    got_median: float | None
    got_count: int


class Verification(msgspec.Struct):
    """The verdict. `error` says why there is none; then nothing was checked."""

    users_checked: int = 0
    mismatches: int = 0
    users_in_doubt: int = 0
    window_seconds: float | None = None
    at: float | None = None
    first_mismatches: list[Mismatch] = msgspec.field(default_factory=list)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Oracle:
    """Every user's exact median (NaN where `counts` is 0) and count; both of shape (users,)."""

    medians: Floats
    counts: npt.NDArray[np.int64]

    def median(self, user: int) -> float | None:
        """User `user`'s median, None without scores."""
        return float(self.medians[user]) if self.counts[user] else None


def exact_medians(users: UserIndices, scores: Floats, total_users: int) -> Oracle:
    """Compute `statistics.median` of each user's scores, for all users at once.

    `users` and `scores` are equally long columns, in any order. O(n log n) for n scores.
    """
    order = np.lexsort((scores, users))
    ranked = scores[order]
    counts = np.bincount(users, minlength=total_users)
    starts = np.cumsum(counts) - counts
    medians = np.full(total_users, np.nan)
    some = np.flatnonzero(counts)
    high = ranked[starts[some] + counts[some] // 2]
    low = ranked[starts[some] + (counts[some] - 1) // 2]
    odd = counts[some] % 2 == 1
    medians[some] = np.where(odd, high, (low + high) / 2)
    return Oracle(medians, counts)


def compare(
    oracle: Oracle, users: UserIndices, items: list[MedianItem], workload: Workload
) -> list[Mismatch]:
    """List the users, in the order asked, on whom `items` (aligned with `users`) are wrong.

    Raises UnverifiableError when the items aren't those asked for.
    """
    if len(items) != len(users):
        raise UnverifiableError(f"asked for {len(users)} medians, got {len(items)} items")
    mismatches = []
    for user, item in zip(users.tolist(), items, strict=True):
        name = workload.user_id(user)
        if item.user_id != name:
            raise UnverifiableError(f"asked for user {name!r}, got an item for {item.user_id!r}")
        median, count = oracle.median(user), int(oracle.counts[user])
        if item.median != median or item.count != count:
            mismatches.append(Mismatch(name, median, count, item.median, item.count))
    return mismatches


class MedianClient:
    """`POST /medians`, at one instant, with a few tries.

    Raises UnverifiableError when there is no usable answer.
    """

    def __init__(self, session: aiohttp.ClientSession, state_url: str) -> None:
        self._session = session
        self._url = state_url + MEDIANS_PATH
        self._decode = msgspec.json.Decoder(_MediansAnswer).decode

    async def medians(self, user_ids: list[str], at: float | None = None) -> list[MedianItem]:
        """Items for at most LOOKUP_USERS users, in their order."""
        asked: dict[str, object] = {"user_ids": user_ids}
        if at is not None:
            asked["at"] = at
        body = msgspec.json.encode(asked)
        complaint = ""
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(_PAUSE_SECONDS)
            try:
                async with self._session.post(self._url, data=payload(body)) as response:
                    answer = await response.read()
                    status = response.status
            except TimeoutError:
                complaint = f"{self._url} did not answer in time"
                continue
            except (aiohttp.ClientError, OSError) as error:
                complaint = f"{self._url} can't be reached ({why(error)})"
                continue
            if status == 200:
                return self._read(answer)
            problem = read_problem(answer)
            complaint = f"{self._url} answered {status} {problem.name} {problem.sentence}".rstrip()
            if status < 500:
                break
        raise UnverifiableError(complaint)

    def _read(self, answer: bytes) -> list[MedianItem]:
        try:
            return self._decode(answer).items
        except msgspec.DecodeError as error:
            raise UnverifiableError(f"{self._url}: unreadable answer: {error}") from error


async def verify(
    client: MedianClient, ledger: Ledger, workload: Workload, at: float
) -> Verification:
    """Check every comparable user at the instant `at` (epoch seconds, after the last answer).

    All answers are fetched first: the service looks back only so far. Raises UnverifiableError.
    """
    users = ledger.comparable_users
    result = Verification(users_in_doubt=ledger.users_in_doubt, at=at)
    pages = [users[start : start + LOOKUP_USERS] for start in range(0, len(users), LOOKUP_USERS)]
    answers = [
        await client.medians([workload.user_id(user) for user in page.tolist()], at)
        for page in pages
    ]
    windows = {item.window_seconds for items in answers for item in items}
    if len(windows) > 1:
        raise UnverifiableError(f"the service answered for different windows: {sorted(windows)}")
    if not windows:
        return result
    window_seconds = windows.pop()
    if window_seconds > ledger.keep_seconds:
        raise UnverifiableError(
            f"the service's window grew to {window_seconds:g} s during the run; run again"
        )
    oracle = exact_medians(*ledger.between(at - window_seconds, at), workload.options.users)
    mismatches = [
        mismatch
        for page, items in zip(pages, answers, strict=True)
        for mismatch in compare(oracle, page, items, workload)
    ]
    result.window_seconds = window_seconds
    result.users_checked = len(users)
    result.mismatches = len(mismatches)
    result.first_mismatches = mismatches[:MISMATCHES_KEPT]
    return result
