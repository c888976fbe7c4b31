"""A producer that keeps sending while containers die, and remembers what was acknowledged."""

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Self

import urllib3

from tests.compose.conftest import event

if TYPE_CHECKING:
    from tests.compose.conftest import ComposeStack

_PAUSE_SECONDS = 0.01


class Load:
    """Sends one event at a time, each under a key of its own, again until it is acknowledged.

    Use as a context manager: at its end everything that was begun has been acknowledged.
    """

    def __init__(self, stack: "ComposeStack", user_id: str) -> None:
        self._stack = stack
        self._user_id = user_id
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._send_until_stopped)
        self.acknowledged = 0
        self.failures = 0
        self._abandoned = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, error: object, *_: object) -> None:
        self._abandoned = error is not None
        self._stopped.set()
        self._thread.join()

    def wait_for(self, count: int) -> None:
        """Wait until so many more have been acknowledged."""
        goal = self.acknowledged + count
        self._stack.wait_until(f"{goal} acknowledged", lambda: self.acknowledged >= goal)

    def _send_until_stopped(self) -> None:
        number = 0
        while not self._stopped.is_set():
            self._send(number)
            number += 1
            time.sleep(_PAUSE_SECONDS)

    def _send(self, number: int) -> None:
        document, key = event(self._user_id, number), f"{self._user_id}-{number}"
        while not self._abandoned:
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                if self._stack.predict(document, Idempotency_Key=key).status == 200:
                    self.acknowledged += 1
                    return
            self.failures += 1
            time.sleep(5 * _PAUSE_SECONDS)
