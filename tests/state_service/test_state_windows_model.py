"""The window engine against an oracle that is too simple to be wrong, under random use."""

import itertools
import math
import statistics
from typing import ClassVar, Literal

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from state_service.errors import HistoryError
from state_service.formats import checksum, decode_segment_block, encode_segment, join_blocks
from state_service.windows import ACCEPTED, FUTURE, LATE, WindowRules, Windows

WINDOW, AHEAD, HISTORY = 10.0, 4.0, 3.0
USERS = ["ann", "bob", "c/c", "ден"]
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)

users = st.sampled_from(USERS)
# Halves are exact in float64, so that both ends of the window are hit and not nearly hit.
offsets = st.integers(-40, 12).map(lambda halves: halves / 2)
scores = st.one_of(
    st.sampled_from([0.0, -0.0, 0.5, 0.25, 1e300, -1e300, 5e-324]), st.floats(-1e300, 1e300)
)
events = st.tuples(users, offsets, scores)
lengths = st.one_of(st.none(), st.sampled_from([0.5, 2.0, WINDOW]))
moments = st.one_of(st.none(), offsets)


def _restarted(windows: Windows) -> Windows:
    """Return new windows with what the old ones put into a snapshot."""
    windows.seal()
    fresh = Windows(windows.rules)
    for segment in windows.segments:
        payloads = encode_segment(segment, windows.user_ids(segment), block_rows=3)
        stored = join_blocks([decode_segment_block(p, checksum(p)) for p in payloads])
        fresh.restore(
            segment.number, stored.user_ids, stored.counts, stored.timestamps, stored.scores
        )
    return fresh


class _Machine(RuleBasedStateMachine):
    clock: ClassVar[Literal["wall", "event"]]

    def __init__(self) -> None:
        super().__init__()
        rules = WindowRules(WINDOW, AHEAD, HISTORY, self.clock, memtable_events=8)
        self.windows = Windows(rules)
        self.now = 1000.0
        self.newest = -math.inf
        self.accepted: list[tuple[str, float, float]] = []

    # --- the oracle ---------------------------------------------------------------------------

    def reference(self) -> float:
        return self.now if self.clock == "wall" else self.newest

    def verdicts(self, timestamps: list[float]) -> list[int]:
        bound = self.now + AHEAD
        newest = max([self.newest, *(t for t in timestamps if t <= bound)])
        oldest = (self.now if self.clock == "wall" else newest) - WINDOW
        return [FUTURE if t > bound else LATE if t < oldest else ACCEPTED for t in timestamps]

    def held(self, user: str, low: float, high: float) -> list[tuple[float, float]]:
        return [(t, score) for name, t, score in self.accepted if name == user and low <= t <= high]

    def bounds(self, length: float | None, at: float | None) -> tuple[float, float] | None:
        """Return the interval asked for, None when it reaches too far back."""
        end = self.reference() if at is None else at
        low = end - (WINDOW if length is None else length)
        return None if low < self.reference() - WINDOW - HISTORY else (low, end + AHEAD)

    # --- what may happen ----------------------------------------------------------------------

    @rule(batch=st.lists(events, max_size=20))
    def ingest(self, batch: list[tuple[str, float, float]]) -> None:
        timestamps = [self.now + offset for _, offset, _ in batch]
        expected = self.verdicts(timestamps)
        got = self.windows.ingest(
            [user for user, _, _ in batch],
            np.array(timestamps, np.float64),
            np.array([score for _, _, score in batch], np.float64),
            self.now,
        )
        assert got.tolist() == expected
        for (user, _, score), timestamp, verdict in zip(batch, timestamps, expected, strict=True):
            if verdict == ACCEPTED:
                self.accepted.append((user, timestamp, score))
                self.newest = max(self.newest, timestamp)

    @rule(seconds=st.integers(0, 30).map(lambda halves: halves / 2))
    def advance(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def seal(self) -> None:
        self.windows.seal()

    @rule()
    def expire(self) -> None:
        self.windows.expire(self.now)

    @rule()
    def restart(self) -> None:
        self.windows = _restarted(self.windows)

    @rule(user=st.one_of(users, st.just("nobody")), length=lengths, offset=moments)
    def ask_one(self, user: str, length: float | None, offset: float | None) -> None:
        at = None if offset is None else self.now + offset
        bounds = self.bounds(length, at)
        if bounds is None:
            with pytest.raises(HistoryError):
                self.windows.summary(user, self.now, length, at, QUANTILES)
            return
        held = self.held(user, *bounds)
        got = self.windows.summary(user, self.now, length, at, QUANTILES)
        assert got.count == len(held)
        if not held:
            assert (got.median, got.min, got.max, got.mean, got.newest_timestamp) == (None,) * 5
            assert got.quantiles == (None,) * len(QUANTILES)
            return
        values = [score for _, score in held]
        assert got.median == statistics.median(values)
        assert (got.min, got.max) == (min(values), max(values))
        assert got.newest_timestamp == max(timestamp for timestamp, _ in held)
        assert got.quantiles == tuple(np.quantile(values, QUANTILES, method="linear").tolist())
        assert got.mean == pytest.approx(
            math.fsum(values) / len(values), rel=1e-12, abs=1e-12 * max(map(abs, values))
        )

    @rule(
        asked=st.lists(st.one_of(users, st.sampled_from(["nobody", ""])), max_size=8),
        length=lengths,
        offset=moments,
    )
    def ask_many(self, asked: list[str], length: float | None, offset: float | None) -> None:
        at = None if offset is None else self.now + offset
        bounds = self.bounds(length, at)
        if bounds is None:
            with pytest.raises(HistoryError):
                self.windows.medians(asked, self.now, length, at)
            return
        columns = [column.tolist() for column in self.windows.medians(asked, self.now, length, at)]
        for user, median, count, newest in zip(asked, *columns, strict=True):
            held = self.held(user, *bounds)
            assert count == len(held)
            if held:
                assert median == statistics.median(score for _, score in held)
                assert newest == max(timestamp for timestamp, _ in held)
            else:
                assert math.isnan(median)
                assert math.isnan(newest)

    # --- what always holds --------------------------------------------------------------------

    @invariant()
    def is_consistent(self) -> None:
        self.windows.check()

    @invariant()
    def keeps_what_can_be_asked_for(self) -> None:
        horizon = self.reference() - WINDOW - HISTORY
        needed = [name for name, timestamp, _ in self.accepted if timestamp >= horizon]
        assert self.windows.live_events >= len(needed)
        assert self.windows.active_users >= len(set(needed))


class _WallMachine(_Machine):
    clock = "wall"


class _EventMachine(_Machine):
    clock = "event"


_SETTINGS = settings(max_examples=50, stateful_step_count=30, deadline=None)


def test_windows_answer_as_the_oracle_does_under_the_wall_clock() -> None:
    run_state_machine_as_test(_WallMachine, settings=_SETTINGS)


def test_windows_answer_as_the_oracle_does_under_the_event_clock() -> None:
    run_state_machine_as_test(_EventMachine, settings=_SETTINGS)


def test_restarting_twice_changes_no_bit() -> None:
    windows = Windows(WindowRules(memtable_events=8))
    generator = np.random.default_rng(7)
    scores_of_all = generator.standard_normal(100)
    names = list(itertools.islice(itertools.cycle(USERS), 100))
    windows.ingest(names, 1000.0 + generator.random(100), scores_of_all, 1000.0)
    before = [windows.summary(user, 1001.0, quantiles=QUANTILES) for user in USERS]
    for _ in range(2):
        windows = _restarted(windows)
    # The mean is a sum, and a sum's last bit depends on its order: everything else is exact.
    for user, old in zip(USERS, before, strict=True):
        new = windows.summary(user, 1001.0, quantiles=QUANTILES)
        assert new.median == old.median
        assert new.quantiles == old.quantiles
        assert new.mean == pytest.approx(old.mean, rel=1e-12)
