"""Whatever becomes of the state service, what was scored is recorded, and once."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
import torch
import urllib3

from handler.breaker import Backoff, CircuitBreaker
from handler.delivery import SpooledDelivery
from handler.draining import Drainer
from handler.pipeline import Pipeline
from handler.recording import StateClient
from handler.scoring import Scorer
from handler.settings import HandlerSettings
from handler.spool import Spool
from tests.handler.pipeline_support import (
    UNREACHABLE,
    CountingClient,
    CountingNetwork,
    body_of,
    event,
    request,
)

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 0.5
MIB = 1 << 20


@dataclass
class MortalState:
    """A state service that dies and comes back at the same address, on the same database."""

    database: Path
    arguments: tuple[str, ...] = ()
    program: tuple[str, ...] = ("state_service",)
    url: str = ""
    port: str = "0"
    process: "subprocess.Popen[str] | None" = None

    def start(self) -> None:
        command = [sys.executable, "-m", *self.program, "--port", self.port]
        self.process = subprocess.Popen(
            [*command, "--database", str(self.database), *self.arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        found = re.search(r"http://\S+:(\d+)", self.process.stdout.readline())
        assert found
        self.url, self.port = found.group(), found.group(1)

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            with self.process:
                self.process.kill()

    def get(self, path: str) -> Any:
        answer = urllib3.request("GET", self.url + path)
        assert answer.status == 200, answer.data
        return answer.json()


@dataclass
class Worker:
    """A worker's parts as the handler puts them together."""

    url: str
    spool_path: Path
    max_bytes: int = 64 * MIB
    exits: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        def spool() -> Spool:
            return Spool(self.spool_path, self.max_bytes, 3600.0)

        self.client = self.exits.enter_context(closing(CountingClient(self.url)))
        self.spool = self.exits.enter_context(closing(spool()))
        self.breaker = CircuitBreaker()
        self.drainer = Drainer(StateClient(self.url), spool(), self.breaker, TIMEOUT_SECONDS)
        self.drainer.start()
        self.exits.callback(self.drainer.stop)
        self.pipeline = Pipeline(
            HandlerSettings(forward_timeout_seconds=TIMEOUT_SECONDS),
            Scorer(CountingNetwork(), 3, torch.device("cpu")),
            SpooledDelivery(self.client, self.spool, self.breaker),
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.exits.close()

    def recorded(self, *events: Any, **headers: str) -> Any:
        (answer,) = self.pipeline.process([request(*events, **headers)])
        assert answer.status == 200, answer.body
        return body_of(answer)["recorded"]

    def is_drained(self) -> bool:
        return self.spool.next() is None and not self.breaker.is_open


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


@pytest.fixture
def start_mortal(tmp_path: Path) -> Iterator[Callable[..., MortalState]]:
    with ExitStack() as exits:

        def start(*arguments: str) -> MortalState:
            state = MortalState(tmp_path / "state.db", arguments)
            exits.callback(state.kill)
            state.start()
            return state

        yield start


@pytest.fixture
def state(start_mortal: Callable[..., MortalState]) -> MortalState:
    return start_mortal()


@pytest.fixture
def worker(state: MortalState, tmp_path: Path) -> Iterator[Worker]:
    with Worker(state.url, tmp_path / "spool.db") as worker:
        yield worker


def test_what_is_scored_while_the_state_service_is_dead_is_counted_once_it_is_back(
    worker: Worker, state: MortalState
) -> None:
    assert worker.recorded(event()) == "stored"
    state.kill()
    assert [worker.recorded(event()) for _ in range(5)] == ["spooled"] * 5
    assert worker.recorded({}) == "nothing"
    state.start()
    eventually(worker.is_drained)
    assert worker.recorded(event()) == "stored"
    assert state.get("/users/user-1/median")["count"] == 7
    assert worker.spool.status().replayed_events == 5


def test_the_state_service_tells_how_the_spool_is(worker: Worker, state: MortalState) -> None:
    state.kill()
    worker.recorded(event(), event())
    state.start()
    eventually(worker.is_drained)
    eventually(lambda: state.get("/stats")["spool"]["replayed_events"] == 2)
    spool = state.get("/stats")["spool"]
    assert (spool["batches"], spool["spooled_events"], spool["expired_events"]) == (0, 2, 0)
    metrics = urllib3.request("GET", f"{state.url}/metrics").data.decode()
    assert 'medianserve_spool_events_total{outcome="replayed"} 2.0' in metrics
    assert "medianserve_spool_batches 0.0" in metrics


def test_a_dead_state_service_is_not_asked_at_every_request(
    worker: Worker, state: MortalState
) -> None:
    state.send(signal.SIGSTOP)
    try:
        assert [worker.recorded(event()) for _ in range(20)] == ["spooled"] * 20
        assert len(worker.client.calls) == 1
    finally:
        state.send(signal.SIGCONT)
    eventually(worker.is_drained)
    assert state.get("/users/user-1/median")["count"] == 20


def test_a_request_that_is_sent_again_while_spooled_counts_once(
    worker: Worker, state: MortalState
) -> None:
    state.kill()
    for _ in range(3):
        assert worker.recorded(event(), idempotency_key="one") == "spooled"
    state.start()
    eventually(worker.is_drained)
    assert worker.recorded(event(), idempotency_key="one") == "stored"
    assert state.get("/users/user-1/median")["count"] == 1


def test_what_arrived_although_it_was_spooled_counts_once(
    worker: Worker, state: MortalState
) -> None:
    """The stopped service has the request in its socket, and takes it when it goes on."""
    assert worker.recorded(event()) == "stored"
    state.send(signal.SIGSTOP)
    assert worker.recorded(event()) == "spooled"
    state.send(signal.SIGCONT)
    eventually(worker.is_drained)
    assert state.get("/users/user-1/median")["count"] == 2
    assert state.get("/stats")["duplicates"] == 1


def test_a_refused_request_is_spooled_and_its_neighbours_are_stored(
    start_mortal: Callable[..., MortalState], tmp_path: Path
) -> None:
    state = start_mortal("--max-live-events", "10")
    with Worker(state.url, tmp_path / "spool.db") as worker:
        answers = worker.pipeline.process(
            [request(event()), request(*[event()] * 20), request(event())]
        )
        assert [body_of(answer)["recorded"] for answer in answers] == [
            "stored",
            "spooled",
            "stored",
        ]
        assert not worker.breaker.is_open


def test_a_dry_run_is_not_spooled(worker: Worker, state: MortalState) -> None:
    state.kill()
    assert worker.recorded(event(), x_dry_run="1") == "dry_run"
    assert worker.spool.status().batches == 0


def test_without_state_service_and_with_a_full_spool_a_request_gets_503(tmp_path: Path) -> None:
    with Worker(UNREACHABLE, tmp_path / "spool.db", max_bytes=MIB) as worker:
        many = [event("u" * 250)] * 2000
        answers = [worker.pipeline.process([request(*many)])[0] for _ in range(5)]
        assert answers[0].status == 200
        assert (answers[-1].status, body_of(answers[-1])["code"]) == (503, "not_recorded")
        assert "Retry-After" in answers[-1].headers
        kept = sum(answer.status == 200 for answer in answers)
        assert worker.spool.status().spooled_events == kept * 2000


def test_what_the_state_service_will_never_take_does_not_hold_up_the_rest(
    start_mortal: Callable[..., MortalState], tmp_path: Path
) -> None:
    state = start_mortal("--max-user-id-bytes", "10")
    state.kill()
    with Worker(state.url, tmp_path / "spool.db") as worker:
        assert worker.recorded(event("longer-than-ten-bytes")) == "spooled"
        assert worker.recorded(event()) == "spooled"
        state.start()
        eventually(worker.is_drained)
        assert state.get("/users/user-1/median")["count"] == 1
        assert worker.spool.status().refused == 1


def test_what_is_refused_for_good_does_not_cost_its_neighbours_in_the_same_batch(
    start_mortal: Callable[..., MortalState], tmp_path: Path
) -> None:
    state = start_mortal("--max-user-id-bytes", "10")
    state.kill()
    with Worker(state.url, tmp_path / "spool.db") as worker:
        answers = worker.pipeline.process(
            [request(event()), request(event("longer-than-ten-bytes")), request(event(), event())]
        )
        assert [body_of(answer)["recorded"] for answer in answers] == ["spooled"] * 3
        state.start()
        eventually(worker.is_drained)
        assert state.get("/users/user-1/median")["count"] == 3
        status = worker.spool.status()
        assert (status.refused, status.replayed_events) == (1, 3)


def test_what_another_worker_has_left_is_replayed(worker: Worker, state: MortalState) -> None:
    with Worker(UNREACHABLE, worker.spool_path) as killed:
        assert killed.recorded(event()) == "spooled"
    eventually(lambda: worker.spool.status().replayed_events == 1)
    assert state.get("/users/user-1/median")["count"] == 1


def test_a_state_service_that_cannot_write_costs_nothing_that_was_accepted(
    start_mortal: Callable[..., MortalState], tmp_path: Path
) -> None:
    """It answers 503 `not_durable`: its database has been taken away."""
    state = start_mortal()
    with Worker(state.url, tmp_path / "spool.db") as worker:
        aside = state.database.with_name("aside.db")
        state.database.rename(aside)
        assert worker.recorded(event()) == "spooled"
        aside.rename(state.database)
        eventually(worker.is_drained)
        assert state.get("/users/user-1/median")["count"] == 1


def test_pauses_double_up_to_a_bound_and_vary_by_chance() -> None:
    longest, shortest = Backoff(lambda: 1.0), Backoff(lambda: 0.0)
    bounds = [longest.pause_seconds() for _ in range(7)]
    assert bounds == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert [shortest.pause_seconds() for _ in range(7)] == [bound / 2 for bound in bounds]
    longest.reset()
    assert longest.pause_seconds() == 0.1
