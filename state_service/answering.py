"""Where a question is answered: at once when it is short, in a thread when it is long.

What a question has collected does not change any more, so its answer is that of the moment at
which it was asked, wherever and whenever it is computed.
"""

import asyncio
from typing import Protocol, TypeVar

LONG = 20_000  # scores: about a millisecond of the event loop's time

_Answer_co = TypeVar("_Answer_co", covariant=True)


class Question(Protocol[_Answer_co]):
    """What the windows have collected for a question: `size` scores."""

    @property
    def size(self) -> int:
        """How many scores the answer has to look at."""

    def answer(self) -> _Answer_co:
        """Compute it; pure, in any thread."""


async def answered(question: Question[_Answer_co]) -> _Answer_co:
    """Return the answer without keeping the event loop."""
    if question.size <= LONG:
        return question.answer()
    return await asyncio.to_thread(question.answer)
