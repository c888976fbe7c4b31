"""Order statistics against the standard library and numpy."""

import itertools
import math
import statistics
from collections.abc import Sequence
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray

from state_service.statistics import Summary, medians_by_owner, summarise

LARGEST = 1.7976931348623157e308
SMALLEST = 5e-324

ordinary = st.one_of(st.floats(-1e300, 1e300), st.sampled_from([0.0, -0.0, 0.5, 1e300, SMALLEST]))
any_finite = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([LARGEST, -LARGEST])
)
fractions_of_one = st.lists(st.floats(0, 1), min_size=1, max_size=5)


def _columns(scores: list[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.arange(len(scores), dtype=np.float64), np.array(scores, np.float64)


def _described(scores: list[float], quantiles: Sequence[float] = ()) -> Summary:
    """Describe scores of which some lie in two ascending runs and the others anywhere."""
    third = len(scores) // 3
    runs = [np.sort(part) for part in (scores[:third], scores[third : 2 * third]) if len(part)]
    return summarise(runs, np.array(scores[2 * third :], np.float64), 7.0, quantiles)


@given(st.lists(ordinary, min_size=1, max_size=50))
def test_the_median_is_the_standard_librarys(scores: list[float]) -> None:
    assert _described(scores).median == statistics.median(scores)


@given(st.lists(ordinary, min_size=1, max_size=50), fractions_of_one)
def test_quantiles_are_numpys_linear_ones(scores: list[float], quantiles: list[float]) -> None:
    expected = np.quantile(scores, quantiles, method="linear").tolist()
    assert _described(scores, quantiles).quantiles == tuple(expected)


@given(st.lists(any_finite, min_size=1, max_size=50))
def test_every_statistic_of_finite_scores_is_finite_and_in_their_range(
    scores: list[float],
) -> None:
    summary = _described(scores, (0.0, 0.25, 0.5, 1.0))
    low, high = min(scores), max(scores)
    assert (summary.count, summary.min, summary.max) == (len(scores), low, high)
    assert summary.newest_timestamp == 7.0
    assert summary.median is not None
    assert low <= summary.median <= high
    assert summary.mean is not None
    assert math.isfinite(summary.mean)
    assert all(value is not None and math.isfinite(value) for value in summary.quantiles)


@given(st.lists(any_finite, min_size=1, max_size=50))
def test_the_mean_is_the_exact_one_but_for_rounding(scores: list[float]) -> None:
    exact = sum(map(Fraction, scores), start=Fraction(0)) / len(scores)
    mean = _described(scores).mean
    assert mean is not None
    largest = max(abs(score) for score in scores)
    assert abs(Fraction(mean) - exact) <= Fraction(largest) / 10**12 + Fraction(SMALLEST)


@pytest.mark.parametrize(
    ("scores", "median"),
    [
        ([LARGEST, LARGEST], LARGEST),
        ([-LARGEST, -LARGEST], -LARGEST),
        ([1.5e308, 1.25e308], 1.375e308),
        ([-LARGEST, LARGEST], 0.0),
        ([SMALLEST, SMALLEST], SMALLEST),
        ([SMALLEST, 3 * SMALLEST], 2 * SMALLEST),
        ([1.0], 1.0),
        ([-0.0, 0.0], 0.0),
        ([0.1, 0.2, 0.2, 0.2, 0.9], 0.2),
    ],
)
def test_two_middle_scores_have_a_mean_even_where_their_sum_does_not_fit(
    scores: list[float], median: float
) -> None:
    timestamps, values = _columns(scores)
    assert _described(scores).median == median
    owners = np.zeros(len(scores), np.int32)
    assert medians_by_owner(owners, timestamps, values, 1)[0].tolist() == [median]


def test_the_mean_of_sums_that_cancel_beyond_float64_is_finite() -> None:
    # numpy adds in eight lanes: one becomes +inf, the next one -inf, and their sum NaN.
    scores = [LARGEST, -LARGEST, *([0.0] * 6)] * 3
    assert _described(scores).mean == 0.0


def test_quantiles_of_scores_further_apart_than_float64_are_finite() -> None:
    summary = _described([-LARGEST, LARGEST], (0.0, 0.25, 0.5, 0.75, 1.0))
    expected = (-LARGEST, -LARGEST / 2, 0.0, LARGEST / 2, LARGEST)
    assert summary.quantiles == pytest.approx(expected, rel=1e-12)


def test_nothing_has_no_statistics() -> None:
    summary = summarise([], np.empty(0), None, (0.5, 1.0))
    assert summary.count == 0
    assert (summary.min, summary.max, summary.mean, summary.median) == (None,) * 4
    assert summary.quantiles == (None, None)
    assert summary.newest_timestamp is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), ordinary), max_size=60))
def test_many_users_medians_are_each_ones(events: list[tuple[int, float]]) -> None:
    timestamps, scores = _columns([score for _, score in events])
    owners = np.array([owner for owner, _ in events], np.int32)
    columns = medians_by_owner(owners, timestamps, scores, 7)
    for owner, (median, count, newest) in enumerate(
        zip(*(column.tolist() for column in columns), strict=True)
    ):
        own = [(time, score) for time, (name, score) in enumerate(events) if name == owner]
        assert count == len(own)
        if own:
            assert median == statistics.median(score for _, score in own)
            assert newest == max(time for time, _ in own)
        else:
            assert math.isnan(median)
            assert math.isnan(newest)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
@pytest.mark.parametrize("zeros", [(-0.0, 0.0, 0.0, -0.0), (-0.0, 0.0, 0.0, 7.0), (-0.0,) * 4])
def test_the_order_of_two_kinds_of_zero_shows_in_no_answer(
    zeros: tuple[float, ...], order: tuple[int, ...]
) -> None:
    scores = [zeros[place] for place in order]
    summary = _described(scores, (0.0, 0.5, 1.0))
    answers = [summary.min, summary.max, summary.median, summary.mean, *summary.quantiles]
    owners = np.zeros(4, np.int32)
    medians, _, _ = medians_by_owner(owners, *_columns(scores), 1)
    assert not [value for value in (*answers, medians.item(0)) if str(value) == "-0.0"]
