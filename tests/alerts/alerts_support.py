"""A state service that faults are done to."""

import signal
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass

import urllib3

from tests.handler.test_handler_delivery import MortalState
from tests.state_service import state_slow


@dataclass
class FaultyState(MortalState):
    """A real service that dies, comes back, and whose file others write into."""

    def start(self) -> None:
        """Start it and wait until it has restored."""
        super().start()
        self.wait_until_ready()

    def start_slowly(self, row_seconds: float) -> None:
        """Start it on a disk that takes so long for each row; it is restoring on return."""
        usual, self.program = self.program, (state_slow.__name__, str(row_seconds))
        super().start()
        self.program = usual

    def pause(self, seconds: float) -> None:
        """Leave it without a processor for so long."""
        self.send(signal.SIGSTOP)
        time.sleep(seconds)
        self.send(signal.SIGCONT)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 30
        while urllib3.request("GET", f"{self.url}/readyz").status != 200:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def record(
        self, key: str, timestamps: Sequence[float] | None = None, skipped: int = 0
    ) -> urllib3.BaseHTTPResponse:
        """Post a batch of events of one user's, by default one of this moment."""
        times = [time.time()] if timestamps is None else list(timestamps)
        batch = {"key": key, "user_id": ["u"] * len(times), "timestamp": times, "skipped": skipped}
        batch["score"] = [1.0] * len(times)
        return urllib3.request("POST", f"{self.url}/scores", json={"batches": [batch]})

    def damage_journal(self) -> None:
        """Change a bit of the oldest row, as a disk would; the service must be dead."""
        with sqlite3.connect(self.database) as database:
            database.execute(
                "UPDATE journal SET crc32 = 4294967295 - crc32 "
                "WHERE sequence = (SELECT min(sequence) FROM journal)"
            ).close()
        database.close()
