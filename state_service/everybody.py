"""Rankings of all users: one is computed at a time, however many ask.

Who asks while one is computed waits for the next, which all who wait share: the running one may
have begun before an event that the asker knows to be recorded. So at any moment one thread is busy
with it, and one more ranking is wanted of each kind.
"""

import asyncio

from state_service.answering import answered
from state_service.ranking import By, Ranking, RankingQuestion
from state_service.service import StateService


class Everybody:
    """Asks one service about all of its users."""

    def __init__(self, service: StateService) -> None:
        self._service = service
        self._one_at_a_time = asyncio.Lock()
        self._waiting: dict[By, asyncio.Task[Ranking]] = {}

    async def ranking(self, by: By) -> Ranking:
        """Return a ranking of this moment or a later one. Raises `UnavailableError`."""
        if by not in self._waiting:
            self._waiting[by] = asyncio.create_task(self._rank(by))
        return await asyncio.shield(self._waiting[by])  # one asker may leave, the others stay

    async def _rank(self, by: By) -> Ranking:
        async with self._one_at_a_time:
            del self._waiting[by]  # who comes from here on wants a later one
            self._service.require_ready()
            question = self._service.windows.all_medians_question(self._service.clock())
            return await answered(RankingQuestion(by, question))
