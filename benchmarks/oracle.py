"""Compare the engine's answers with an oracle that is too simple to be wrong.

`python -m benchmarks.oracle` feeds seeded streams with disorder, ties, duplicates, scores of
±1e300, late and future events and a clock that jumps both ways, while work is finished out of
order, users are forgotten and the engine is thrown away and restored from its segments; it asks at
least 100,000 questions and reports how many were answered wrongly.
"""

import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from state_service import selection
from state_service.statistics import Summary
from state_service.windows import ACCEPTED, WindowRules, Windows

if TYPE_CHECKING:
    from state_service.merging import Work

_WINDOW, _AHEAD, _HISTORY = 300.0, 60.0, 10.0
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.95, 1.0)
_STEPS_A_ROUND = 60

Events = list[tuple[float, float]]  # (timestamp, score)


@dataclass(slots=True)
class Tally:
    """How many answers were compared, how many were wrong, and what happened meanwhile."""

    questions: int = 0
    wrong: int = 0
    events: int = 0
    restarts: int = 0
    clock_jumps: int = 0
    bracketed: int = 0  # answers about so many scores that they were not simply sorted


class _Round:
    """One stream through one engine."""

    def __init__(self, seed: int, tally: Tally) -> None:
        self.dice = np.random.default_rng(seed)
        self.tally = tally
        dice = self.dice
        self.rules = WindowRules(
            _WINDOW,
            _AHEAD,
            _HISTORY,
            "event" if seed % 2 else "wall",
            memtable_events=int(dice.choice([100, 2000, 20_000])),
        )
        self.windows = Windows(self.rules)
        count = int(dice.choice([1, 20, 500]))
        self.users = [f"user {number}" for number in range(count)]
        self.batch_events = int(dice.choice([50, 2000]))
        self.kind = seed % 5
        self.now = 1_795_000_000.0 + float(dice.random())
        self.held: defaultdict[str, Events] = defaultdict(list)
        self.doubtful: defaultdict[str, Events] = defaultdict(list)  # once out of reach: maybe gone
        self.works: list[Work] = []

    def scores(self, count: int) -> NDArray[np.float64]:
        """Draw scores: plain, tied, huge, tiny apart, or rising with time."""
        plain = self.dice.standard_normal(count)
        match self.kind:
            case 0:
                return plain
            case 1:
                return np.round(plain)
            case 2:
                return self.dice.choice([1e300, -1e300, 5e-324, 0.0, -0.0, 1.0], count)
            case 3:
                return np.asarray(1 + self.dice.integers(0, 1 << 20, count) * 2.0**-52, np.float64)
        return self.now + plain * 1e-3

    def step(self) -> None:
        """Let something happen, then ask."""
        dice = self.dice
        self.now += float(dice.exponential(4.0))
        if dice.random() < 0.03:
            self.now += float(dice.choice([400.0, -5.0, -200.0]))
            self.tally.clock_jumps += 1
        self.ingest()
        match int(dice.integers(12)):
            case 0:
                self.windows.freeze()
            case 1:
                self.windows.seal()
            case 2 | 3 | 4:
                self.expire()
            case 5:
                self.restart()
            case 6:
                self.forget(str(dice.choice(self.users)))
        self.work()
        for _ in range(20):
            self.ask_one()
        self.ask_many()

    def ingest(self) -> None:
        """Take a batch in disorder, a tenth of it twice."""
        dice, count = self.dice, self.batch_events
        # The lower a user's number, the more traffic.
        places = (len(self.users) * dice.random(count) ** 3).astype(int)
        names = [self.users[place] for place in places]
        times = self.now - dice.exponential(60.0, count) + 70 * (dice.random(count) < 0.02)
        scores = self.scores(count)
        again = dice.integers(0, count, count // 10)
        names += [names[place] for place in again]
        times, scores = np.append(times, times[again]), np.append(scores, scores[again])
        verdicts = self.windows.ingest(names, times, scores, self.now)
        for name, time, score, verdict in zip(
            names, times.tolist(), scores.tolist(), verdicts.tolist(), strict=True
        ):
            if verdict == ACCEPTED:
                self.held[name].append((time, score))
                self.tally.events += 1

    def expire(self) -> None:
        """Expire; remember what the engine may have dropped."""
        self.windows.expire(self.now)
        horizon = self.windows.reference(self.now) - _WINDOW - _HISTORY
        for name, events in self.held.items():
            self.doubtful[name] += [event for event in events if event[0] < horizon]
            self.held[name] = [event for event in events if event[0] >= horizon]

    def work(self) -> None:
        """Take a piece of work, finish another, or all of it."""
        work = self.windows.next_work()
        if work is not None:
            self.works.append(work)
        while self.works and self.dice.random() < 0.7:
            done = self.works.pop(int(self.dice.integers(len(self.works))))
            self.windows.finish(done, done.run())

    def restart(self) -> None:
        """Throw the engine away, restore another from its segments."""
        self.windows.seal()
        old, self.windows = self.windows, Windows(self.rules)
        for segment in old.segments:
            self.windows.restore(
                segment.number,
                old.user_ids(segment),
                segment.counts,
                segment.timestamps,
                segment.scores,
            )
        self.works.clear()
        self.tally.restarts += 1

    def forget(self, name: str) -> None:
        """Forget a user."""
        self.windows.forget(name)
        self.held.pop(name, None)
        self.doubtful.pop(name, None)

    def truth(self, name: str, length: float | None, at: float | None) -> Events | None:
        """Return what is in the window, None when nobody can know or it may not be asked."""
        reference = self.windows.reference(self.now)
        end = reference if at is None else at
        low = end - (_WINDOW if length is None else length)
        high = end if at is not None else end + _AHEAD
        if low < reference - _WINDOW - _HISTORY:
            return None
        if any(low <= time <= high for time, _ in self.doubtful[name]):
            return None
        return [event for event in self.held[name] if low <= event[0] <= high]

    def draw_question(self) -> tuple[float | None, float | None]:
        """Draw a window's length and moment."""
        length = None if self.dice.random() < 0.5 else float(self.dice.uniform(1, _WINDOW))
        at = None if self.dice.random() < 0.7 else self.now - float(self.dice.uniform(0, 12))
        return length, at

    def ask_one(self) -> None:
        """Compare one user's summary."""
        length, at = self.draw_question()
        name = str(self.dice.choice(self.users))
        truth = self.truth(name, length, at)
        if truth is None:
            return
        got = self.windows.summary(name, self.now, length, at, _QUANTILES)
        self.tally.questions += 1
        self.tally.bracketed += len(truth) > selection.DIRECT
        self.tally.wrong += not is_right(got, truth)

    def ask_many(self) -> None:
        """Compare many users' medians."""
        length, at = self.draw_question()
        names = [*self.dice.choice(self.users, min(20, len(self.users))).tolist(), "nobody"]
        truths = [self.truth(name, length, at) for name in names]
        if None in truths:
            return
        columns = self.windows.medians(names, self.now, length, at)
        for truth, median, count in zip(
            truths, columns.medians.tolist(), columns.counts.tolist(), strict=True
        ):
            assert truth is not None
            self.tally.questions += 1
            expected = statistics.median(score for _, score in truth) if truth else None
            right = np.isnan(median) if expected is None else median == expected
            self.tally.wrong += not (right and count == len(truth))


def is_right(got: Summary, truth: Events) -> bool:
    """Compare a summary with the events it is about; only the mean may differ by rounding."""
    if not truth:
        return got.count == 0 and got.median is None and got.newest_timestamp is None
    scores = [score for _, score in truth]
    mean = statistics.fmean(scores)
    assert got.mean is not None
    return (
        got.count == len(scores)
        and got.median == statistics.median(scores)
        and (got.min, got.max) == (min(scores), max(scores))
        and got.newest_timestamp == max(time for time, _ in truth)
        and got.quantiles == tuple(np.quantile(scores, _QUANTILES).tolist())
        and abs(got.mean - mean) <= 1e-12 * max(map(abs, scores))
    )


def compare(questions: int, seed: int) -> Tally:
    """Run rounds until so many answers have been compared."""
    tally = Tally()
    while tally.questions < questions:
        stream = _Round(seed, tally)
        for _ in range(_STEPS_A_ROUND):
            stream.step()
        stream.windows.check()
        seed += 1
    return tally


def main(
    questions: Annotated[int, typer.Option(help="how many answers to compare at least")] = 100_000,
    seed: Annotated[int, typer.Option(help="the first round's seed")] = 1,
) -> None:
    """Compare the engine's answers with a naive oracle's; exit with 1 when one was wrong."""
    tally = compare(questions, seed)
    print(
        f"{tally.questions:,} answers compared, {tally.wrong} wrong "
        f"({tally.events:,} events, {tally.restarts} restarts, {tally.clock_jumps} clock jumps, "
        f"{tally.bracketed:,} answers by bracketing)"
    )
    if tally.wrong:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
