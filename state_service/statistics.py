"""Exact statistics of columns of scores. Pure numpy.

No answer is -0.0: which of two zeros stands in the middle depends on where the scores lie, and a
restart may lay them elsewhere. Adding 0.0 makes both 0.0 and changes nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from state_service import selection
from state_service.ordering import by_slot_then_score


@dataclass(frozen=True, slots=True)
class Summary:
    """One user's window. All but `count` are None, and `quantiles` Nones, when it is empty.

    `mean` is None as well when it was not asked for.
    """

    count: int
    min: float | None
    max: float | None
    mean: float | None
    median: float | None
    quantiles: tuple[float | None, ...]
    newest_timestamp: float | None


def summarise(
    runs: Sequence[NDArray[np.float64]],
    heap: NDArray[np.float64],
    newest_timestamp: float | None,
    quantiles: Sequence[float] = (),
    *,
    mean: bool = True,
) -> Summary:
    """Describe scores that lie in non-empty ascending runs and a heap in any order.

    Complexity as `selection.order_statistics`; O(n) more with the mean.
    """
    count = sum(map(len, runs)) + len(heap)
    if not count:
        return Summary(0, None, None, None, None, (None,) * len(quantiles), None)
    if count <= selection.DIRECT:
        runs, heap = (), np.concatenate([*runs, heap])
    lows, highs = [run.item(0) for run in runs], [run.item(-1) for run in runs]
    if len(heap):
        lows.append(float(np.minimum.reduce(heap)))
        highs.append(float(np.maximum.reduce(heap)))
    low, high = min(lows) + 0.0, max(highs) + 0.0
    places = [(count - 1) * float(q) for q in quantiles]
    ranks = [(count - 1) // 2, count // 2]
    for place in places:
        ranks += [int(place), min(int(place) + 1, count - 1)]
    values = selection.order_statistics(runs, heap, ranks)
    return Summary(
        count=count,
        min=low,
        max=high,
        mean=_mean([*runs, heap], count, low, high) if mean else None,
        median=_middle(values[0], values[1]),
        quantiles=tuple(
            [
                _interpolated(values[2 + 2 * i], values[3 + 2 * i], place - int(place))
                for i, place in enumerate(places)
            ]
        ),
        newest_timestamp=newest_timestamp,
    )


def medians_by_owner(
    owners: NDArray[np.int32],
    timestamps: NDArray[np.float64],
    scores: NDArray[np.float64],
    owner_count: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Return (medians, counts, newest timestamps) of owners 0 … owner_count - 1; NaN where empty.

    O(n) for n scores, without a loop over owners.
    """
    ranked = by_slot_then_score(owners, scores).scores
    counts = np.bincount(owners, minlength=owner_count)
    starts = np.cumsum(counts) - counts
    some = counts > 0
    medians = np.full(owner_count, np.nan)
    low = ranked[(starts + (counts - 1) // 2)[some]]
    high = ranked[(starts + counts // 2)[some]]
    with np.errstate(over="ignore"):
        total = low + high
    medians[some] = np.where(np.isfinite(total), total / 2, low / 2 + high / 2) + 0.0
    newest = np.full(owner_count, -np.inf)
    np.maximum.at(newest, owners, timestamps)
    newest[~some] = np.nan
    return medians, counts, newest


def _middle(low: float, high: float) -> float:
    """Return the mean of the two middle scores, also where their sum exceeds float64."""
    total = low + high
    return (total / 2 if isfinite(total) else low / 2 + high / 2) + 0.0


def _interpolated(low: float, high: float, weight: float) -> float:
    """Return numpy's `linear` quantile between two neighbours, to the last bit."""
    distance = high - low
    if not isfinite(distance):
        return 4 * _interpolated(low / 4, high / 4, weight)
    value = low + distance * weight if weight < 0.5 else high - distance * (1 - weight)
    return value + 0.0


def _mean(parts: Sequence[NDArray[np.float64]], count: int, low: float, high: float) -> float:
    with np.errstate(over="ignore", invalid="ignore"):  # the sum may exceed float64, the mean not
        mean = sum(float(np.add.reduce(part)) for part in parts) / count
        if not isfinite(mean):
            mean = sum(float(np.add.reduce(part / count)) for part in parts)
    return min(max(mean, low), high) + 0.0  # rounding may lead just outside
