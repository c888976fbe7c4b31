"""Exact ranks over runs and a heap against sorting everything."""

from math import isqrt
from unittest import mock

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from numpy.typing import NDArray

from state_service import selection
from state_service.selection import order_statistics

values = st.one_of(
    st.floats(-1e300, 1e300), st.sampled_from([0.0, 1.0, 1.0, 2.0, -1e300, 1e300, 5e-324])
)
# A list and how often it comes again: ties in all amounts, far more values than drawn.
columns = st.tuples(st.lists(values, max_size=30), st.integers(1, 20)).map(
    lambda drawn: drawn[0] * drawn[1]
)


def _assert_ranks(
    runs: list[NDArray[np.float64]], heap: NDArray[np.float64], ranks: list[int]
) -> None:
    everything = np.sort(np.concatenate([*runs, heap]))
    assert order_statistics(runs, heap, ranks) == everything[ranks].tolist()


@given(st.lists(columns, max_size=6), columns, st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_every_rank_is_the_one_that_sorting_gives(
    run_lists: list[list[float]], heap: list[float], fractions: list[float]
) -> None:
    runs = [np.sort(np.array(run, np.float64)) for run in run_lists]
    total = sum(map(len, runs)) + len(heap)
    if not total:
        return
    ranks = [int(fraction * (total - 1)) for fraction in fractions]
    ranks += [(total - 1) // 2, total // 2]
    with mock.patch.multiple(selection, DIRECT=8):  # so that little is much
        _assert_ranks(runs, np.array(heap, np.float64), ranks)


@pytest.mark.parametrize("shape", ["alike", "apart", "ties", "two values", "lopsided"])
def test_large_windows_are_exact_whatever_the_runs_look_like(shape: str) -> None:
    dice = np.random.default_rng(11)
    columns = [dice.standard_normal(4000 + 997 * i) for i in range(24)]
    if shape == "apart":  # rising scores: no two runs overlap
        columns = [column + 100 * i for i, column in enumerate(columns)]
    elif shape == "ties":
        columns = [np.round(column, 1) for column in columns]
    elif shape == "two values":
        columns = [(column > 0).astype(np.float64) for column in columns]
    elif shape == "lopsided":
        columns = [column[: 3 + i] for i, column in enumerate(columns)] + [columns[0] * 1e300]
    heap = dice.permutation(columns.pop())
    runs = [np.sort(column) for column in columns]
    total = sum(map(len, runs)) + len(heap)
    ranks = [0, 1, total // 20, (total - 1) // 2, total // 2, total - 2, total - 1]
    _assert_ranks(runs, heap, ranks)
    _assert_ranks([], np.concatenate([*runs, heap]), ranks)


def test_a_sample_that_misleads_costs_time_and_not_the_answer() -> None:
    # Every place the sample looks at holds the same large value; all the others are small.
    heap = np.arange(100_000, dtype=np.float64)
    stride = len(heap) // isqrt(selection.SAMPLED * len(heap))
    heap[stride // 2 :: stride] = 1e9
    _assert_ranks([], heap, [10, 49_999, 50_000, 99_000])
