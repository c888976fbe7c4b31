"""A user's scores themselves: the newest ones, or a thinned picture of all. Pure."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from state_service.questions import Question
from state_service.statistics import Summary

_NO_FLOATS = np.empty(0, np.float64)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: spreads bits evenly


class ScoreColumns(NamedTuple):
    """Scores and their timestamps (epoch seconds), float64 [n] each, newest first."""

    timestamps: NDArray[np.float64]
    scores: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WindowQuestion:
    """About one user's newest `limit` scores, and how many there are in the window."""

    of: Question
    limit: int

    @property
    def size(self) -> int:
        """The user's scores held, in the window or not."""
        return self.of.size

    def answer(self) -> tuple[ScoreColumns, Summary]:
        """Return both, of one moment."""
        return newest_scores(self.of, self.limit), self.of.answer()


def newest_scores(question: Question, limit: int) -> ScoreColumns:
    """Return a user's newest scores, of equally old ones the least first.

    Segments are looked at from the newest back, until no older one can have a newer score.
    O(segments log users + scores looked at).
    """
    return _sorted(*_found(question, limit), limit)


def thinned_scores(question: Question, limit: int) -> tuple[ScoreColumns, int]:
    """Return at most about `limit` scores from all of the window, and one in how many they are.

    Which ones hangs on their own bits alone: the same ones again a moment later, so that a plot
    stands still where nothing happens. O(the user's scores).
    """
    timestamps, scores = _found(question, None)
    one_in = 1
    while len(timestamps) > limit * one_in:
        one_in *= 2
    if one_in > 1:
        bits = (timestamps.view(np.uint64) ^ (scores.view(np.uint64) * _GOLDEN)) * _GOLDEN
        drawn = (bits >> np.uint64(40)) % np.uint64(one_in) == 0
        timestamps, scores = timestamps[drawn], scores[drawn]
    return _sorted(timestamps, scores, len(timestamps)), one_in


def _found(
    question: Question, limit: int | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the user's timestamps and scores inside: all, or the newest `limit` and some more."""
    interval = question.interval
    timestamps, scores = [_NO_FLOATS], [_NO_FLOATS]
    for rows in question.loose:
        inside = interval.inside(rows.timestamps)
        timestamps.append(rows.timestamps[inside])
        scores.append(rows.scores[inside])
    for segment in reversed(question.segments):
        enough = -np.inf if limit is None else _nth_newest(timestamps, limit)
        if segment.max_timestamp < max(interval.low, enough):
            break  # as do all that follow
        begin, end = segment.runs.find(question.slot)
        if begin == end:
            continue
        column = segment.packed_timestamps.decoded(slice(begin, end))
        inside = interval.inside(column)
        timestamps.append(column[inside])
        scores.append(segment.scores[begin:end][inside])
    return np.concatenate(timestamps), np.concatenate(scores) + 0.0  # no -0.0


def _nth_newest(parts: list[NDArray[np.float64]], n: int) -> float:
    """Return the n-th newest timestamp found so far, minus infinity while there are fewer."""
    if sum(map(len, parts)) < n:
        return -np.inf
    timestamps = np.concatenate(parts)
    return float(np.partition(timestamps, len(timestamps) - n)[len(timestamps) - n])


def _sorted(timestamps: NDArray[np.float64], scores: NDArray[np.float64], n: int) -> ScoreColumns:
    if len(timestamps) > n:
        recent = timestamps >= np.partition(timestamps, len(timestamps) - n)[len(timestamps) - n]
        timestamps, scores = timestamps[recent], scores[recent]
    order = np.lexsort((scores, -timestamps))[:n]
    return ScoreColumns(timestamps[order], scores[order])
