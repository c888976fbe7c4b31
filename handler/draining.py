"""The thread that asks whether the state service is back, and replays what was spooled.

Every worker has one; the spool's lock lets one of them on a host replay, body by body, oldest
first. A body that is acknowledged is deleted; one sent twice, because the worker was killed in
between, is recognised by its keys.
"""

import logging
import socket
import threading
import time

from handler.breaker import Backoff, CircuitBreaker
from handler.recording import RecordingError, StateClient, split_batches
from handler.spool import Spool, SpooledBody, SpoolError

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.25  # between two looks at the breaker, and at what a killed worker has left
_PROBE_SECONDS = 1.0
_REPORT_SECONDS = 1.0


class Drainer:
    """Probes while the breaker is open, drains while it is closed. `start` it, once."""

    def __init__(
        self, client: StateClient, spool: Spool, breaker: CircuitBreaker, timeout_seconds: float
    ) -> None:
        """Client and spool are this thread's alone."""
        self._client = client
        self._spool = spool
        self._breaker = breaker
        self._timeout_seconds = timeout_seconds
        self._backoff = Backoff()
        self._stopping = threading.Event()
        self._failure: str | None = None
        self._reported_at = float("-inf")
        self._host = socket.gethostname()
        self._thread = threading.Thread(target=self._run, name="spool-drainer", daemon=True)

    def start(self) -> None:
        """Begin. A worker is never asked to end: it is killed."""
        self._thread.start()

    def stop(self) -> None:
        """End after the body under way, and close what is this thread's."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        pause_seconds = 0.0
        while not self._stopping.wait(pause_seconds):
            try:
                self._turn()
                self._tell(None)
                self._backoff.reset()
                pause_seconds = _LOOK_SECONDS
            except (RecordingError, SpoolError) as error:
                self._tell(str(error))
                pause_seconds = self._backoff.pause_seconds()
            except Exception:
                log.exception("draining the spool failed")  # a fault here: later, once more
                pause_seconds = self._backoff.pause_seconds()
        self._client.close()
        self._spool.close()

    def _turn(self) -> None:
        if self._breaker.is_open:
            self._report(_PROBE_SECONDS)
            self._breaker.closes()
        if expired := self._spool.expire():
            log.error("%d events of the spool were too old to be replayed", expired)
        self._drain()

    def _drain(self) -> None:
        replayed = False
        while not self._stopping.is_set() and self._spool.waits():
            with self._spool.draining() as alone:
                if not alone:
                    return
                if (waiting := self._spool.next()) is None:
                    break  # another has just replayed it
                if not replayed:  # so that it is seen before it is over
                    self._report(self._timeout_seconds)
                replayed = True
                self._replay(waiting)
            if time.monotonic() - self._reported_at > _REPORT_SECONDS:
                self._report(self._timeout_seconds)
        if replayed:
            self._spool.shrink()
            self._report(self._timeout_seconds)
            log.warning("the spool has been replayed")

    def _replay(self, waiting: SpooledBody) -> None:
        """Send one body. Raises `RecordingError` when it cannot be taken yet."""
        if not waiting.intact:
            self._refuse(waiting, "damaged on disk")
            return
        try:
            self._client.replay(waiting.body, self._timeout_seconds)
        except RecordingError as error:
            if not error.invalid:
                raise
            if len(parts := split_batches(waiting.body)) > 1:
                self._spool.split(waiting, parts)  # it may be because of one of them
            else:
                self._refuse(waiting, str(error))
            return
        self._spool.done(waiting)

    def _refuse(self, waiting: SpooledBody, reason: str) -> None:
        log.error("%d spooled events cannot be replayed: %s", waiting.events, reason)
        self._spool.refuse(waiting, reason)

    def _report(self, timeout_seconds: float) -> None:
        """Tell the state service how the spool is, which shows whether it is there."""
        report = {"host": self._host, **self._spool.status()._asdict()}
        self._client.report(report, timeout_seconds)
        self._reported_at = time.monotonic()

    def _tell(self, failure: str | None) -> None:
        """Log why it cannot drain once, not at every attempt of a night."""
        if failure is not None and failure != self._failure:
            log.warning("not drained: %s; told again when the reason changes", failure)
        self._failure = failure
