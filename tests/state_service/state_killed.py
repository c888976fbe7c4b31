"""`python -m tests.state_service.state_killed POINT COUNT …`: the service, which kills itself.

It runs as always until something has been done for the COUNT-th time, and then gets SIGKILL before
it can do anything else: the moments that a kill from outside hits too seldom to rely on.
"""

import itertools
import os
import signal
import sys
from typing import Any

from state_service.__main__ import main
from state_service.journal import Journal
from state_service.snapshot import SnapshotStore
from state_service.store import Store

POINTS: dict[str, tuple[type, str]] = {
    "committed": (Journal, "append"),  # and neither applied nor acknowledged
    "wrote": (Store, "write"),  # a journal row or a block
    "wrote-segment": (SnapshotStore, "write_segment"),
    "wrote-keys": (SnapshotStore, "write_keys"),
    "snapshot-valid": (SnapshotStore, "commit"),  # and nothing deleted yet
    "deleted": (Store, "delete"),  # some of what the snapshot covers
}


def _kill_after(owner: type, name: str, count: int) -> None:
    original = getattr(owner, name)
    calls = itertools.count(1)

    async def wrapped(self: object, *arguments: Any, **options: Any) -> Any:
        result = await original(self, *arguments, **options)
        if next(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapped)


if __name__ == "__main__":
    point, times = sys.argv[1:3]
    _kill_after(*POINTS[point], int(times))
    sys.argv[1:3] = []
    main()
