"""A user's scores themselves: the newest ones, and a thinned picture of all."""

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from state_service.newest import newest_scores, thinned_scores
from state_service.questions import Question
from state_service.windows import WindowRules, Windows

NOW = 1_700_000_000.0
AGES = st.lists(st.tuples(st.sampled_from("uv"), st.integers(0, 40)), max_size=80)


def question_of(events: list[tuple[str, float, float]], window: float | None = None) -> Question:
    """Ask about u, of whom there are events in segments, in pending runs and in the memtable."""
    windows = Windows(WindowRules(window_seconds=30, memtable_events=8))
    for number, (user_id, timestamp, score) in enumerate(events):
        windows.ingest([user_id], np.array([timestamp]), np.array([score]), NOW)
        if number == len(events) // 2:
            windows.seal()
    return windows.median_question("u", NOW, window)


@given(AGES, st.integers(1, 30), st.sampled_from([None, 10.0]))
def test_the_newest_scores_are_those_of_the_window_by_time(
    ages: list[tuple[str, int]], limit: int, window: float | None
) -> None:
    events = [(user, NOW - age, float(number % 7)) for number, (user, age) in enumerate(ages)]
    mine = [(-time, score) for user, time, score in events if user == "u"]
    inside = sorted(row for row in mine if -row[0] >= NOW - (window or 30))
    timestamps, scores = newest_scores(question_of(events, window), limit)
    listed = list(zip((-timestamps).tolist(), scores.tolist(), strict=True))
    assert listed == inside[:limit]


def test_few_scores_are_all_drawn() -> None:
    events = [("u", NOW - age, float(age)) for age in range(20)]
    drawn, one_in = thinned_scores(question_of(events), 20)
    assert one_in == 1
    assert drawn.scores.tolist() == [float(age) for age in range(20)]


def test_of_many_scores_some_from_everywhere_are_drawn_and_the_same_ones_again() -> None:
    rng = random.Random(1)
    windows = Windows(WindowRules(window_seconds=300))
    timestamps = np.array([NOW - 300 * rng.random() for _ in range(50_000)])
    scores = np.array([rng.gauss(0, 1) for _ in range(50_000)])
    windows.ingest(["u"] * 50_000, timestamps, scores, NOW)
    before, one_in = thinned_scores(windows.question("u", NOW), 1000)
    assert one_in == 64
    assert 600 < len(before.scores) < 1000
    counts, _ = np.histogram(before.timestamps, 10)
    assert counts.min() > 40
    windows.ingest(["u"] * 3, np.full(3, NOW), np.array([1.0, 2.0, 3.0]), NOW)
    after, _ = thinned_scores(windows.question("u", NOW), 1000)
    assert {*before.timestamps.tolist()} <= {*after.timestamps.tolist()}


def test_equal_scores_at_regular_times_are_thinned_too() -> None:
    timestamps = NOW - np.arange(8_000) / 32
    windows = Windows(WindowRules(window_seconds=300))
    windows.ingest(["u"] * 8_000, timestamps, np.full(8_000, 0.5), NOW)
    drawn, one_in = thinned_scores(windows.question("u", NOW), 1000)
    assert one_in == 8
    assert 600 < len(drawn.scores) < 1400


def test_an_unknown_user_has_none() -> None:
    question = Windows(WindowRules()).question("nobody", NOW)
    assert len(newest_scores(question, 5).scores) == 0
    assert thinned_scores(question, 5)[1] == 1
