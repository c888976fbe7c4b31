"""The window engine against an oracle that is too simple to be wrong, under random use."""

import dataclasses
import itertools
import math
import statistics
from typing import TYPE_CHECKING, ClassVar, Literal

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from state_service.errors import HistoryError
from state_service.formats import (
    checksum,
    decode_segment_block,
    encode_segment,
    join_blocks,
)
from state_service.windows import ACCEPTED, FUTURE, LATE, WindowRules, Windows
from tests.state_service.event_clock_oracle import NaiveClock

if TYPE_CHECKING:
    from state_service.merging import Work
    from state_service.questions import Question
    from state_service.statistics import Summary

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
    state = windows.event_clock and windows.event_clock.state
    for segment in windows.segments:
        payloads = encode_segment(segment, windows.user_ids(segment), block_rows=3)
        stored = join_blocks(
            [decode_segment_block(payload, checksum(payload)) for payload in payloads]
        )
        fresh.restore(
            segment.number, stored.user_ids, stored.counts, stored.timestamps, stored.scores
        )
    fresh.resume_clock(state or None)
    return fresh


class _Machine(RuleBasedStateMachine):
    clock: ClassVar[Literal["wall", "event"]]

    def __init__(self) -> None:
        super().__init__()
        rules = WindowRules(WINDOW, AHEAD, HISTORY, self.clock, memtable_events=8)
        self.windows = Windows(rules)
        self.now = 1000.0
        self.naive = NaiveClock(WINDOW)
        self.accepted: list[tuple[str, float, float]] = []
        # What some `expire` could drop; only a clock set back brings it into a window again.
        self.doubtful: list[tuple[str, float, float]] = []
        self.works: list[Work] = []
        self.questions: list[tuple[Question, Summary]] = []

    # --- the oracle ---------------------------------------------------------------------------

    def reference(self) -> float:
        return self.now if self.clock == "wall" else self.naive.time

    def verdict(self, user: str, timestamp: float) -> int:
        if timestamp > self.now + AHEAD:
            return FUTURE
        if self.clock == "event":
            return ACCEPTED if self.naive.take(user, timestamp) else LATE
        return LATE if timestamp < self.now - WINDOW else ACCEPTED

    def follow_clock(self) -> None:
        """Take over where the clock stands after what its own tests look at."""
        if self.windows.event_clock is not None:
            self.naive.follow(self.windows.event_clock)

    def bounds(self, length: float | None, at: float | None) -> tuple[float, float] | None:
        """Return the interval asked for, None when it reaches too far back."""
        end = self.reference() if at is None else at
        low = end - (WINDOW if length is None else length)
        if low < self.reference() - WINDOW - HISTORY:
            return None
        return low, end + AHEAD if at is None else end

    def held(self, user: str, low: float, high: float) -> list[tuple[float, float]]:
        return [(t, score) for name, t, score in self.accepted if name == user and low <= t <= high]

    def is_certain(self, user: str, low: float, high: float) -> bool:
        """Whether nothing asked for has once been out of reach, and may be gone or not."""
        return not any(name == user and low <= t <= high for name, t, _ in self.doubtful)

    def assert_median(self, user: str, bounds: tuple[float, float], *got: float | None) -> None:
        """Compare (median, count, newest timestamp)."""
        if not self.is_certain(user, *bounds):
            return
        held = self.held(user, *bounds)
        median, count, newest = got
        assert count == len(held)
        if held:
            assert median == statistics.median(score for _, score in held)
            assert newest == max(timestamp for timestamp, _ in held)
        else:
            assert median is None or math.isnan(median)
            assert newest is None or math.isnan(newest)

    # --- what may happen ----------------------------------------------------------------------

    @rule(batch=st.lists(events, max_size=20), in_two_steps=st.booleans())
    def ingest(self, batch: list[tuple[str, float, float]], in_two_steps: bool) -> None:
        names = [user for user, _, _ in batch]
        timestamps = np.array([self.now + offset for _, offset, _ in batch], np.float64)
        scores = np.array([score for _, _, score in batch], np.float64)
        expected = list(map(self.verdict, names, timestamps.tolist()))
        if in_two_steps:
            verdicts, accepted = self.windows.judge(names, timestamps, self.now)
            self.windows.check()
            kept = verdicts == ACCEPTED
            assert accepted == kept.sum()
            self.windows.append(
                list(itertools.compress(names, kept)), timestamps[kept], scores[kept]
            )
        else:
            verdicts = self.windows.ingest(names, timestamps, scores, self.now)
        assert verdicts.tolist() == expected
        for user, timestamp, score, verdict in zip(
            names, timestamps.tolist(), scores.tolist(), expected, strict=True
        ):
            if verdict == ACCEPTED:
                self.accepted.append((user, timestamp, score))

    @rule(seconds=st.integers(0, 30).map(lambda halves: halves / 2))
    def advance(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.sampled_from([0.5, 5.0, 40.0, 1000.0]), back=st.booleans())
    def jump(self, seconds: float, back: bool) -> None:
        self.now += -seconds if back else seconds

    @rule()
    def seal(self) -> None:
        self.windows.seal()

    @rule()
    def freeze(self) -> None:
        self.windows.freeze()

    @rule()
    def take_work(self) -> None:
        work = self.windows.next_work()
        if work is not None:
            self.works.append(work)

    @precondition(lambda self: self.works)
    @rule(data=st.data(), fails=st.booleans())
    def finish_some_work(self, data: st.DataObject, fails: bool) -> None:
        work = self.works.pop(data.draw(st.integers(0, len(self.works) - 1)))
        if fails:
            self.windows.abandon(work)
        else:
            self.windows.finish(work, work.run())

    @rule()
    def finish_all_work(self) -> None:
        while (work := self.windows.next_work()) is not None:
            self.works.append(work)
        while self.works:
            work = self.works.pop()
            self.windows.finish(work, work.run())
        self.windows.freeze()
        while (work := self.windows.next_work()) is not None:
            self.windows.finish(work, work.run())
        assert self.windows.sealed

    @rule()
    def expire(self) -> None:
        self.windows.expire(self.now)
        horizon = self.reference() - WINDOW - HISTORY
        self.doubtful += [event for event in self.accepted if event[1] < horizon]
        self.accepted = [event for event in self.accepted if event[1] >= horizon]

    @rule(user=users)
    def forget(self, user: str) -> None:
        known = sum(name == user for name, _, _ in self.accepted)
        doubtful = sum(name == user for name, _, _ in self.doubtful)
        assert known <= self.windows.forget(user) <= known + doubtful
        self.accepted = [event for event in self.accepted if event[0] != user]
        self.doubtful = [event for event in self.doubtful if event[0] != user]
        assert self.windows.forget(user) == 0
        self.follow_clock()

    @rule(user=users)
    def detach(self, user: str) -> None:
        """Forget a user; what lies in segments is removed by whoever does the next work."""
        known = sum(name == user for name, _, _ in self.accepted)
        doubtful = sum(name == user for name, _, _ in self.doubtful)
        assert known <= self.windows.detach(user) <= known + doubtful
        self.accepted = [event for event in self.accepted if event[0] != user]
        self.doubtful = [event for event in self.doubtful if event[0] != user]
        assert self.windows.detach(user) == 0
        self.follow_clock()

    @rule()
    def restart(self) -> None:
        self.works.clear()
        self.windows = _restarted(self.windows)
        if self.windows.event_clock is not None:
            self.naive.agree(self.windows.event_clock)

    # --- what may be asked --------------------------------------------------------------------

    @rule(user=st.one_of(users, st.just("nobody")), length=lengths, offset=moments)
    def ask_one(self, user: str, length: float | None, offset: float | None) -> None:
        at = None if offset is None else self.now + offset
        bounds = self.bounds(length, at)
        if bounds is None:
            with pytest.raises(HistoryError):
                self.windows.summary(user, self.now, length, at, QUANTILES)
            return
        got = self.windows.summary(user, self.now, length, at, QUANTILES)
        self.assert_median(user, bounds, got.median, got.count, got.newest_timestamp)
        short = self.windows.median_question(user, self.now, length, at).answer()
        assert short == dataclasses.replace(got, mean=None, quantiles=())
        if not self.is_certain(user, *bounds):
            return
        values = [score for _, score in self.held(user, *bounds)]
        if not values:
            assert (got.min, got.max, got.mean) == (None,) * 3
            assert got.quantiles == (None,) * len(QUANTILES)
            return
        assert (got.min, got.max) == (min(values), max(values))
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
        for user, *answer in zip(asked, *columns, strict=True):
            self.assert_median(user, bounds, *answer)

    @rule(length=lengths)
    def ask_everybody(self, length: float | None) -> None:
        bounds = self.bounds(length, None)
        assert bounds is not None
        got = self.windows.all_medians_question(self.now, length).answer()
        columns = [column.tolist() for column in got.columns]
        answers = dict(zip(got.user_ids, zip(*columns, strict=True), strict=True))
        for user in USERS:
            self.assert_median(user, bounds, *answers.get(user, (None, 0, None)))

    @rule(user=users, length=lengths)
    def take_a_question_down(self, user: str, length: float | None) -> None:
        """To be answered as of now, later."""
        question = self.windows.question(user, self.now, length, None, QUANTILES)
        assert question.size >= question.answer().count
        self.questions.append((question, question.answer()))

    @precondition(lambda self: self.questions)
    @rule()
    def answer_what_was_taken_down(self) -> None:
        for question, then in self.questions:
            now = question.answer()
            assert now == then
        self.questions.clear()

    # --- what always holds --------------------------------------------------------------------

    @invariant()
    def is_consistent(self) -> None:
        self.windows.check()
        if self.windows.event_clock is not None:
            self.naive.agree(self.windows.event_clock)

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


_SETTINGS = settings(max_examples=60, stateful_step_count=40, deadline=None)


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
