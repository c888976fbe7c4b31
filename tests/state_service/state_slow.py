"""`python -m tests.state_service.state_slow SECONDS …`: the service on a disk that takes its time.

Each commit of events waits so long before it is written.
"""

import asyncio
import sys

from state_service.__main__ import main
from state_service.formats import Group
from state_service.journal import Journal


def _delay(seconds: float) -> None:
    original = Journal.append

    async def append(self: Journal, sequence: int, group: Group) -> None:
        await asyncio.sleep(seconds)
        await original(self, sequence, group)

    Journal.append = append  # type: ignore[method-assign]


if __name__ == "__main__":
    _delay(float(sys.argv[1]))
    sys.argv[1:2] = []
    main()
