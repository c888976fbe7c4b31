"""Recompute every user's median from what was acknowledged, and compare with the service.

The window is `at - window_seconds <= timestamp <= at`; `oracle` says what its median is.
"""

import asyncio

import aiohttp
import msgspec

from generator.client import payload
from generator.errors import UnverifiableError, why
from generator.ledger import Ledger
from generator.options import MEDIANS_PATH
from generator.oracle import MedianItem, Verification, compare, exact_medians
from generator.outcomes import read_problem
from generator.workload import Workload

LOOKUP_USERS = 10_000
MISMATCHES_KEPT = 10
_TRIES = 3
_PAUSE_SECONDS = 0.25


class _MediansAnswer(msgspec.Struct):
    items: list[MedianItem]


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
