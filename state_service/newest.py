"""A user's newest scores: the window itself, as far back as asked for. Pure."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from state_service.questions import Question
from state_service.statistics import Summary


class ScoreColumns(NamedTuple):
    """Scores and their timestamps (epoch seconds), float64 [n] each, newest first."""

    timestamps: NDArray[np.float64]
    scores: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class NewestQuestion:
    """About one user's newest `limit` scores; `of` says whose, and in which interval."""

    of: Question
    limit: int

    @property
    def size(self) -> int:
        """The user's scores held, in the window or not."""
        return self.of.size

    def answer(self) -> ScoreColumns:
        """Return them, equally old ones by score. O(segments log users + scores looked at).

        Segments are looked at from the newest back, until no older one can have a newer score.
        """
        interval = self.of.interval
        found = [(rows.timestamps, rows.scores) for rows in self.of.loose]
        found = [
            (timestamps[inside], scores[inside])
            for timestamps, scores in found
            for inside in [interval.inside(timestamps)]
        ]
        oldest = _nth_newest(found, self.limit)
        for segment in reversed(self.of.segments):
            if segment.max_timestamp < max(interval.low, oldest):
                break  # as do all that follow
            begin, end = segment.runs.find(self.of.slot)
            if begin == end:
                continue
            timestamps = segment.packed_timestamps.decoded(slice(begin, end))
            inside = interval.inside(timestamps)
            found.append((timestamps[inside], segment.scores[begin:end][inside]))
            oldest = _nth_newest(found, self.limit)
        return _newest(found, self.limit)


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
        return NewestQuestion(self.of, self.limit).answer(), self.of.answer()


def _nth_newest(found: list[tuple[NDArray[np.float64], NDArray[np.float64]]], n: int) -> float:
    """Return the n-th newest timestamp found so far, minus infinity while there are fewer."""
    if sum(len(timestamps) for timestamps, _ in found) < n:
        return -np.inf
    timestamps = np.concatenate([timestamps for timestamps, _ in found])
    return float(np.partition(timestamps, len(timestamps) - n)[len(timestamps) - n])


def _newest(found: list[tuple[NDArray[np.float64], NDArray[np.float64]]], n: int) -> ScoreColumns:
    timestamps = np.concatenate([np.empty(0), *(part for part, _ in found)])
    scores = np.concatenate([np.empty(0), *(part for _, part in found)]) + 0.0  # no -0.0
    if len(timestamps) > n:
        recent = timestamps >= np.partition(timestamps, len(timestamps) - n)[len(timestamps) - n]
        timestamps, scores = timestamps[recent], scores[recent]
    order = np.lexsort((scores, -timestamps))[:n]
    return ScoreColumns(timestamps[order], scores[order])
