"""What a worker tells of itself: the gauges, and that metrics.yaml declares each."""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from handler.breaker import CircuitBreaker
from handler.spool import Spool, SpoolError
from handler.telemetry import PREFIX, SpoolGauges, Telemetry

ROOT = Path(__file__).parents[2]


class Told:
    """Takes what is told, as TorchServe would."""

    def __init__(self) -> None:
        self.gauges: dict[str, float] = {}
        self.rounds = 0
        self._changed = threading.Condition()

    def __call__(self, name: str, value: float) -> None:
        with self._changed:
            self.gauges[name] = value
            self.rounds += name.endswith("heartbeat_timestamp_seconds")
            self._changed.notify_all()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, timeout=20), self.gauges


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool.db", 1 << 20, 3600.0)


def test_a_worker_without_a_spool_tells_that_it_lives() -> None:
    told = Told()
    telemetry = Telemetry(told, interval_seconds=0.01)
    telemetry.start()
    told.wait_until(lambda: told.rounds >= 3)
    telemetry.stop()
    ((name, value),) = told.gauges.items()
    assert name == "medianserve_handler_heartbeat_timestamp_seconds"
    assert value == pytest.approx(time.time(), abs=60)


def test_what_lies_in_the_spool_is_told_beside_its_bounds(spool: Spool) -> None:
    with closing(spool):
        breaker, told = CircuitBreaker(), Told()
        spool.put(b"one", 2)
        breaker.opens()
        for name, value in SpoolGauges(spool, breaker, 1 << 20, 3600.0).read():
            told(name, value)
        assert told.gauges["breaker_open"] == 1
        assert told.gauges["spool_batches"] == 1
        assert told.gauges["spool_bytes"] > 0
        assert told.gauges["spool_bytes_limit"] == 1 << 20
        assert 0 <= told.gauges["spool_oldest_seconds"] < 3600
        assert told.gauges["spool_oldest_seconds_limit"] == 3600
        assert told.gauges["spool_refused_batches"] == 0
        assert told.gauges["spool_expired_events"] == 0


class _BrokenSpool(SpoolGauges):
    def read(self) -> None:  # type: ignore[override]
        raise SpoolError("gone")


def test_a_spool_that_cannot_be_read_does_not_stop_the_heartbeat(
    spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()
    with closing(spool):
        gauges = _BrokenSpool(spool, CircuitBreaker(), 1 << 20, 3600.0)
        telemetry = Telemetry(told, gauges, interval_seconds=0.01)
        telemetry.start()
        told.wait_until(lambda: told.rounds >= 5)
        telemetry.stop()
    assert caplog.text.count("the spool's metrics are missing: gone") == 1


def test_metrics_yaml_declares_what_is_told_and_nothing_else_of_the_handler(spool: Spool) -> None:
    with closing(spool):
        gauges = SpoolGauges(spool, CircuitBreaker(), 1 << 20, 3600.0)
        told = {PREFIX + name for name, _ in gauges.read()} | {
            f"{PREFIX}heartbeat_timestamp_seconds"
        }
    declared = yaml.safe_load((ROOT / "metrics.yaml").read_text())["model_metrics"]["gauge"]
    assert {item["name"] for item in declared} == told | {"PredictionTime"}
