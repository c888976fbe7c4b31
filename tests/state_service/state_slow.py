"""`python -m tests.state_service.state_slow SECONDS …`: the service on a disk that takes its time.

Each commit of events waits so long before it is written, and before it is read at a start.
"""

import asyncio
import sys
from collections.abc import AsyncIterator

from state_service.__main__ import main
from state_service.formats import Group
from state_service.journal import Journal, JournalRow


def _delay(seconds: float) -> None:
    quick_append, quick_uncovered = Journal.append, Journal.uncovered

    async def append(self: Journal, sequence: int, group: Group) -> None:
        await asyncio.sleep(seconds)
        await quick_append(self, sequence, group)

    async def uncovered(self: Journal) -> AsyncIterator[JournalRow]:
        async for row in quick_uncovered(self):
            await asyncio.sleep(seconds)
            yield row

    Journal.append = append  # type: ignore[method-assign]
    Journal.uncovered = uncovered  # type: ignore[method-assign]


if __name__ == "__main__":
    _delay(float(sys.argv[1]))
    sys.argv[1:2] = []
    main()
