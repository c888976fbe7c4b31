"""Every user's exact median of what was acknowledged, and how the service's compares with it. Pure.

The median of `n` scores is the middle one or the mean of the two middle ones in float64, and both
the median and the count must be equal exactly: close is wrong.
"""

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from generator.encoding import Floats
from generator.errors import UnverifiableError
from generator.workload import UserIndices, Workload


class MedianItem(msgspec.Struct):
    """One user's item of the `/medians` answer, as far as it is compared."""

    user_id: str
    median: float | None
    count: int
    window_seconds: float


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
