"""Exact order statistics of scores that lie in many sorted runs and one unsorted heap. Pure numpy.

Few values are put together and partitioned. Of many, most are never looked at: every stride-th
value of each run, sorted, is a sample in which the wanted rank lies near its expected place. Two
values of the sample, some places before and behind, bracket it. Binary search counts exactly how
many values of each run lie below, on and between the two. If the rank turns out to be outside, the
bracket is widened, at last to everything; if it is among the copies of a bracket's end, that is
the answer; else only what lies between is searched on, by the same steps until it is little. So
the sample decides how long it takes, never what comes out.
"""

from collections.abc import Sequence
from math import ceil, inf, isqrt, nextafter, sqrt

import numpy as np
from numpy.typing import NDArray

DIRECT = 8192  # up to here, partitioning all costs less than sampling
SAMPLED = 12  # values of n: the square root of 12 n, so that sorting them pays

Scores = NDArray[np.float64]


def order_statistics(runs: Sequence[Scores], heap: Scores, ranks: Sequence[int]) -> list[float]:
    """Return the values that would stand at `ranks` (0-based) were everything sorted.

    `runs` ascend each, `heap` is in any order, and in another one afterwards; together they are
    longer than each rank. O(n) for few values; for n in r runs O(s log s + r log n + h) a rank,
    s the sample, h the heap.
    """
    total = sum(map(len, runs)) + len(heap)
    if total <= DIRECT:
        return _partitioned(np.concatenate([*runs, heap]) if runs else heap, ranks)
    return [value for pair in _neighbours(ranks) for value in _narrowed(runs, heap, pair)]


def _neighbours(ranks: Sequence[int]) -> list[list[int]]:
    """Group ranks so that adjacent ones, given one after the other, are looked for together."""
    groups: list[list[int]] = []
    for rank in ranks:
        if groups and len(groups[-1]) == 1 and 0 <= rank - groups[-1][0] <= 1:
            groups[-1].append(rank)
        else:
            groups.append([rank])
    return groups


def _partitioned(pool: Scores, ranks: Sequence[int]) -> list[float]:
    pool.partition(ranks)
    return [pool.item(rank) for rank in ranks]


def _narrowed(runs: Sequence[Scores], heap: Scores, ranks: list[int]) -> list[float]:
    """Return the values at one or two adjacent ranks by bracketing."""
    known: dict[int, float] = {}
    below = 0  # values known to stand before all that is left
    wanted = sorted(set(ranks))
    total = sum(map(len, runs)) + len(heap)
    while wanted and total > DIRECT:
        runs, heap, skipped, ends = _bracket(
            runs, heap, wanted[0] - below, wanted[-1] - below, total
        )
        left = sum(map(len, runs)) + len(heap)
        for rank in wanted:
            if rank < below + skipped:
                known[rank] = ends[0]
            elif rank >= below + skipped + left:
                known[rank] = ends[1]
        wanted = [rank for rank in wanted if rank not in known]
        below += skipped
        if left == total:
            break  # only a bracket of everything leaves everything
        total = left
    if wanted:
        values = _partitioned(np.concatenate([*runs, heap]), [rank - below for rank in wanted])
        known.update(zip(wanted, values, strict=True))
    return [known[rank] for rank in ranks]


def _bracket(
    runs: Sequence[Scores], heap: Scores, first: int, last: int, total: int
) -> tuple[list[Scores], Scores, int, tuple[float, float]]:
    """Find two values such that ranks first … last are between or on them.

    Return what lies strictly between, how many values are not above the lower one, and both.
    """
    stride = max(1, total // isqrt(SAMPLED * total))
    middle = stride // 2
    sample = np.concatenate([part[middle::stride] for part in (*runs, heap)])
    sample.sort()
    # Each run's count is off by less than one place, the heap's as a random sample's is.
    margin = 2 + sqrt(len(runs)) + 1.5 * sqrt(len(heap) / stride)
    while True:
        low_place = int(first / total * len(sample) - margin)
        high_place = ceil(last / total * len(sample) + margin)
        low = sample.item(low_place) if low_place >= 0 else -inf
        high = sample.item(high_place) if high_place < len(sample) else inf
        # Values below the float after x are those not above x: one search finds all four counts.
        ends = np.array([low, nextafter(low, inf), high, nextafter(high, inf)])
        places = [run.searchsorted(ends).tolist() for run in runs]
        below, through_low, _, through_high = map(sum, zip([0] * 4, *places, strict=True))
        if below + np.count_nonzero(heap < low) <= first and (
            last < through_high + np.count_nonzero(heap <= high)
        ):
            break
        margin *= 4
    between = [
        run[begin:end] for run, (_, begin, end, _) in zip(runs, places, strict=True) if begin < end
    ]
    heap_between = heap[((heap > low) & (heap < high)).nonzero()[0]]
    skipped = through_low + int(np.count_nonzero(heap <= low))
    return between, heap_between, skipped, (low, high)
