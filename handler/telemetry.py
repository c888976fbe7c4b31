"""What a worker tells TorchServe's `/metrics` of itself, every few seconds, from a thread.

TorchServe counts requests but knows neither whether a worker lives nor what waits in the spool, and
the state service, which shows the spools too, cannot be asked just when they fill. So each worker
tells how late it is and what lies on its host's disk. The gauges are the host's: all workers write
the same ones, and a worker that has died leaves none behind. When the last one has died, the
heartbeat stands still.

TorchServe takes a metric from a line that the worker prints, and drops what its metrics.yaml does
not declare.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator

from handler.breaker import CircuitBreaker
from handler.spool import Spool, SpoolError

log = logging.getLogger(__name__)

PREFIX = "medianserve_handler_"
_INTERVAL_SECONDS = 5.0  # below any sensible scrape interval; nine lines each

Tell = Callable[[str, float], None]  # a gauge's name and its value


class SpoolGauges:
    """Reads a host's spool and the breaker before it. The spool is this object's alone."""

    def __init__(
        self, spool: Spool, breaker: CircuitBreaker, max_bytes: int, max_age_seconds: float
    ) -> None:
        self._spool = spool
        self._breaker = breaker
        self._max_bytes = max_bytes
        self._max_age_seconds = max_age_seconds

    def read(self) -> Iterator[tuple[str, float]]:
        """Yield names and values. Raises `SpoolError`."""
        status = self._spool.status()
        yield "breaker_open", int(self._breaker.is_open)
        yield "spool_batches", status.batches
        yield "spool_bytes", status.bytes
        yield "spool_bytes_limit", self._max_bytes
        yield "spool_oldest_seconds", round(status.oldest_seconds, 3)
        yield "spool_oldest_seconds_limit", self._max_age_seconds
        yield "spool_refused_batches", status.refused
        yield "spool_expired_events", status.expired_events


class Telemetry:
    """Tells the gauges until `stop`; `start` it, once."""

    def __init__(
        self,
        tell: Tell,
        spool: SpoolGauges | None = None,
        interval_seconds: float = _INTERVAL_SECONDS,
    ) -> None:
        self._tell = tell
        self._spool = spool
        self._interval_seconds = interval_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def start(self) -> None:
        """Begin. A worker is never asked to end: it is killed."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        told = True
        while True:
            try:
                self._tell_all()
                told = True
            except SpoolError as error:
                if told:  # once, not every few seconds of a night
                    log.warning("the spool's metrics are missing: %s", error)
                told = False
            except Exception:
                log.exception("no more metrics are told")
                return
            if self._stopping.wait(self._interval_seconds):
                return

    def _tell_all(self) -> None:
        self._tell(f"{PREFIX}heartbeat_timestamp_seconds", round(time.time(), 3))
        if self._spool is not None:
            for name, value in self._spool.read():
                self._tell(PREFIX + name, value)
