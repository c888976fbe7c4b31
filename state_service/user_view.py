"""What the live page shows of one user: the window described, scores to draw, its past. Pure."""

from dataclasses import dataclass

import msgspec

from state_service.newest import thinned_scores
from state_service.questions import Question
from state_service.statistics import Summary

QUANTILES = (0.05, 0.95)  # the band that is drawn around the median


class TrailPoint(msgspec.Struct, frozen=True):
    """What a window held at a moment; Nones where it was empty."""

    time: float
    count: int
    median: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, time: float, summary: Summary) -> "TrailPoint":
        """Take it from the answer to a question with `QUANTILES`."""
        return cls(time, summary.count, summary.median, *summary.quantiles)


class UserView(msgspec.Struct, kw_only=True):
    """One user's window at `time`, the moment at which it ends; epoch seconds."""

    user_id: str
    time: float
    window_seconds: float
    count: int
    min: float | None
    max: float | None
    mean: float | None
    median: float | None
    low: float | None
    high: float | None
    newest_timestamp: float | None
    timestamps: list[float]  # newest first
    scores: list[float]
    one_in: int  # of so many scores one is among them
    trail: list[TrailPoint] = []


@dataclass(frozen=True, slots=True)
class ViewQuestion:
    """About one user's window and scores to draw, as of one moment."""

    question: Question
    user_id: str
    time: float
    window_seconds: float
    scores_drawn: int

    @property
    def size(self) -> int:
        """The user's scores held."""
        return self.question.size

    def answer(self) -> UserView:
        """Compute it; pure, in any thread."""
        summary = self.question.answer()
        drawn, one_in = thinned_scores(self.question, self.scores_drawn)
        low, high = summary.quantiles
        return UserView(
            user_id=self.user_id,
            time=self.time,
            window_seconds=self.window_seconds,
            count=summary.count,
            min=summary.min,
            max=summary.max,
            mean=summary.mean,
            median=summary.median,
            low=low,
            high=high,
            newest_timestamp=summary.newest_timestamp,
            timestamps=drawn.timestamps.tolist(),
            scores=drawn.scores.tolist(),
            one_in=one_in,
        )
