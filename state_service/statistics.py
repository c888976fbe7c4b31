"""Exact order statistics of columns of scores. Pure numpy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Summary:
    """One user's window. All but `count` are None, and `quantiles` Nones, when it is empty."""

    count: int
    min: float | None
    max: float | None
    mean: float | None
    median: float | None
    quantiles: tuple[float | None, ...]
    newest_timestamp: float | None


def summarise(
    timestamps: NDArray[np.float64], scores: NDArray[np.float64], quantiles: Sequence[float]
) -> Summary:
    """Describe n scores (float64 [n], any order). O(n), or O(n log n) with quantiles."""
    count = len(scores)
    if not count:
        return Summary(0, None, None, None, None, (None,) * len(quantiles), None)
    middle = (count - 1) // 2, count // 2
    ranked = np.partition(scores, middle)
    return Summary(
        count=count,
        min=float(scores.min()),
        max=float(scores.max()),
        mean=_mean(scores),
        median=float(_middle(ranked[middle[0]], ranked[middle[1]])),
        quantiles=_quantiles(scores, quantiles) if quantiles else (),
        newest_timestamp=float(timestamps.max()),
    )


def medians_by_owner(
    owners: NDArray[np.int64],
    timestamps: NDArray[np.float64],
    scores: NDArray[np.float64],
    owner_count: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Return (medians, counts, newest timestamps) of owners 0 … owner_count - 1; NaN where empty.

    O(n log n) for n scores, without a loop over owners.
    """
    ranked = scores[np.lexsort((scores, owners))]
    counts = np.bincount(owners, minlength=owner_count)
    starts = np.cumsum(counts) - counts
    some = counts > 0
    medians = np.full(owner_count, np.nan)
    medians[some] = _middle(
        ranked[(starts + (counts - 1) // 2)[some]], ranked[(starts + counts // 2)[some]]
    )
    newest = np.full(owner_count, -np.inf)
    np.maximum.at(newest, owners, timestamps)
    newest[~some] = np.nan
    return medians, counts, newest


def _middle(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of the two middle scores, also where their sum exceeds float64."""
    with np.errstate(over="ignore"):
        total = low + high
    return np.where(np.isfinite(total), total / 2, low / 2 + high / 2)


def _mean(scores: NDArray[np.float64]) -> float:
    with np.errstate(over="ignore", invalid="ignore"):  # the sum may exceed float64, the mean not
        mean = scores.mean()
        if not np.isfinite(mean):
            mean = (scores / len(scores)).sum()
    return float(np.clip(mean, scores.min(), scores.max()))  # rounding may lead just outside


def _quantiles(scores: NDArray[np.float64], quantiles: Sequence[float]) -> tuple[float, ...]:
    with np.errstate(over="ignore", invalid="ignore"):  # as may the distance of two scores
        values = np.quantile(scores, quantiles, method="linear")
        if not np.isfinite(values).all():
            values = np.quantile(scores / 4, quantiles, method="linear") * 4
    return tuple(values.tolist())
