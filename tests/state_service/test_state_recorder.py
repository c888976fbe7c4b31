"""One writer: groups, refusals, failures, clients that go away, and the end."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import aiosqlite
import numpy as np
import pytest

from state_service.errors import CapacityError, NotDurableError, UnavailableError
from state_service.formats import Group
from state_service.journal import Journal
from state_service.wire import Batch
from tests.state_service.state_support import Server, batch, serving


def _batch(key: str, user: str = "u", score: float = 0.5, count: int = 1) -> Batch:
    return Batch(key, [user] * count, np.full(count, time.time()), np.full(count, score))


class _Gate:
    """Holds the journal's commits back, or lets them fail, before they are done."""

    def __init__(self, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = asyncio.Event()
        self.groups: list[Group] = []
        self.failure: Exception | None = None
        self._append = journal.append
        monkeypatch.setattr(journal, "append", self._held)

    async def _held(self, sequence: int, group: Group) -> None:
        self.groups.append(group)
        await self.open.wait()
        if self.failure is not None:
            raise self.failure
        await self._append(sequence, group)

    async def reached(self, count: int = 1) -> None:
        await _until(lambda: len(self.groups) >= count)


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise TimeoutError


def _started(server: Server, *batches: Batch) -> "asyncio.Task[Any]":
    return asyncio.create_task(server.service.record(batches))


async def _commit_held_back(
    server: Server, monkeypatch: pytest.MonkeyPatch, key: str
) -> "tuple[_Gate, asyncio.Task[Any]]":
    """Start recording a batch; its commit waits for the gate."""
    gate = _Gate(server.service.journal, monkeypatch)
    recording = _started(server, _batch(key))
    await gate.reached()
    return gate, recording


async def test_what_comes_during_a_commit_shares_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as server:
        gate, first = await _commit_held_back(server, monkeypatch, "first")
        others = [_started(server, _batch(f"k{number}", f"u{number}")) for number in range(50)]
        await asyncio.sleep(0.01)
        assert len(gate.groups) == 1
        gate.open.set()
        await asyncio.gather(first, *others)
        assert [len(group.keys) for group in gate.groups] == [1, 50]
        assert (await server.get("/stats"))["journal"]["commits"] == 2


async def test_nothing_is_visible_or_acknowledged_before_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as server:
        gate, recording = await _commit_held_back(server, monkeypatch, "k")
        assert await server.service.snapshot()  # in between: it must not take the group in either
        assert (await server.get("/users/u/median"))["count"] == 0
        assert (await server.get("/stats"))["accepted"] == 0
        assert not recording.done()
        gate.open.set()
        await recording
        assert (await server.get("/users/u/median"))["count"] == 1
    async with serving(tmp_path) as server:
        assert (await server.get("/users/u/median"))["count"] == 1


async def test_a_key_twice_in_one_group_counts_once_whoever_sends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as server:
        gate, first = await _commit_held_back(server, monkeypatch, "other")
        twice = [_started(server, _batch("k", count=3)) for _ in range(2)]
        await asyncio.sleep(0.01)
        gate.open.set()
        await first
        outcomes = [(await task)[0] for task in twice]
        assert [outcome.duplicate for outcome in outcomes] == [False, True]
        assert {outcome.counts.accepted for outcome in outcomes} == {3}
        stats = await server.get("/stats")
        assert (stats["accepted"], stats["duplicates"], stats["ingest_requests"]) == (4, 3, 2)


async def test_what_does_not_fit_is_refused_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path, max_live_events=10) as server:
        gate, first = await _commit_held_back(server, monkeypatch, "first")
        sizes = {"a": 4, "b": 6, "c": 5, "d": 1}  # 1 is held: a fits, b no more, c does, d no more
        tasks = [_started(server, _batch(key, key, count=size)) for key, size in sizes.items()]
        gate.open.set()
        await first
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(result, CapacityError) for result in results] == [
            False, True, False, True
        ]  # fmt: skip
        asked = (await server.post("/medians", {"user_ids": ["u", *sizes]}))["items"]
        assert [item["count"] for item in asked] == [1, 4, 0, 5, 0]


async def test_a_commit_that_fails_changes_nothing_and_the_next_one_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as server:
        gate = _Gate(server.service.journal, monkeypatch)
        gate.open.set()
        gate.failure = aiosqlite.OperationalError("no room left")
        for _ in range(2):
            with pytest.raises(NotDurableError, match="no room left"):
                await server.service.record([_batch("k")])
        body = {"batches": [batch("k", ["u"], [0.5])]}
        await server.problem("POST", "/scores", 503, "not_durable", json=body)
        await server.problem("GET", "/readyz", 503, "not_durable")
        stats = await server.get("/stats")
        assert (stats["accepted"], stats["batch_keys"], stats["live_events"]) == (0, 0, 0)
        assert stats["journal"]["failures"] == 3
        assert "refused" in stats["durability"]["meaning"]
        assert (await server.get("/users/u/median"))["count"] == 0
        gate.failure = None
        assert not (await server.service.record([_batch("k")]))[0].duplicate
        await server.get("/readyz")
        assert (await server.get("/stats"))["journal"]["error"] is None


async def test_a_snapshot_that_succeeds_makes_it_ready_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or whoever asks /readyz first would never send the event that mends it."""
    async with serving(tmp_path) as server:
        gate = _Gate(server.service.journal, monkeypatch)
        gate.open.set()
        gate.failure = aiosqlite.OperationalError("no room left")
        with pytest.raises(NotDurableError):
            await server.service.record([_batch("k")])
        await server.problem("GET", "/readyz", 503, "not_durable")
        assert await server.service.snapshot()
        await server.get("/readyz")


async def test_clients_that_go_away_corrupt_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as server:
        gate, committing = await _commit_held_back(server, monkeypatch, "committing")
        waiting = _started(server, _batch("waiting"))
        staying = _started(server, _batch("staying"))
        await asyncio.sleep(0)
        committing.cancel()
        waiting.cancel()
        await asyncio.sleep(0)
        gate.open.set()
        await staying
        # The one whose commit had begun counts; the one that waited does not.
        assert [group.keys for group in gate.groups] == [["committing"], ["staying"]]
        again = await server.record(batch("committing", ["u"], [9]), batch("waiting", ["u"], [9]))
        assert [item["duplicate"] for item in again["batches"]] == [True, False]
        assert (await server.get("/users/u/median"))["count"] == 3


async def test_a_fault_in_one_request_does_not_reach_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as server:
        gate, first = await _commit_held_back(server, monkeypatch, "first")
        good = _started(server, _batch("good"))
        unforeseen: Any = 7
        bad = _started(server, Batch("bad", unforeseen, np.ones(1), np.ones(1)))
        gate.open.set()
        await asyncio.gather(first, good)
        with pytest.raises(TypeError):
            await bad
        assert (await server.get("/users/u/median"))["count"] == 2


async def test_only_so_many_requests_may_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path, max_requests_in_flight=3) as server:
        gate, first = await _commit_held_back(server, monkeypatch, "first")
        waiting = [_started(server, _batch(f"k{number}")) for number in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError, match="max_requests_in_flight"):
            await server.service.record([_batch("too many")])
        gate.open.set()
        await asyncio.gather(first, *waiting)
        await server.service.record([_batch("too many")])


async def test_a_stop_records_what_waits_and_takes_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as server:
        gate, first = await _commit_held_back(server, monkeypatch, "first")
        waiting = _started(server, _batch("waiting"))
        await asyncio.sleep(0)
        server.service.stop()
        with pytest.raises(UnavailableError, match="stopping"):
            await server.service.record([_batch("late")])
        gate.open.set()
        await asyncio.gather(first, waiting)
    async with serving(tmp_path) as server:
        assert (await server.get("/users/u/median"))["count"] == 2


async def test_a_large_request_is_recorded_as_a_group_of_its_own(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        sizes = (30_000, 10, 30_000)
        tasks = [_started(server, _batch(f"k{n}", count=size)) for n, size in enumerate(sizes)]
        await asyncio.gather(*tasks)
        assert server.service.commits.commits == 2
        assert (await server.get("/users/u/median"))["count"] == sum(sizes)
    async with serving(tmp_path, durability="snapshot") as server:
        assert (await server.get("/users/u/median"))["count"] == sum(sizes)


@pytest.mark.parametrize("clock", ["wall", "event"])
async def test_under_both_clocks_a_key_and_its_events_come_back_from_the_journal(
    tmp_path: Path, clock: str
) -> None:
    now = time.time()
    sent = [
        batch("first", ["u", "u"], [1.0, 2.0], [now - 250, now - 900]),
        batch("nothing", [], []),
        batch("second", ["u"], [3.0], [now]),
    ]
    async with serving(tmp_path / "one", clock=clock) as server:
        before = await server.record(*sent)
        answer = await server.get("/users/u/stats?q=0.5")
        with (
            closing(sqlite3.connect(tmp_path / "one" / "state.db")) as source,
            closing(sqlite3.connect(tmp_path / "state.db")) as copy,
        ):
            source.backup(copy)  # what a kill at this moment leaves
    async with serving(tmp_path, clock=clock) as server:
        assert server.service.restored.journal_rows_done == 1
        assert await server.get("/users/u/stats?q=0.5") == answer
        again = await server.record(*sent)
        assert again["batches"] == [item | {"duplicate": True} for item in before["batches"]]
        assert await server.get("/users/u/stats?q=0.5") == answer
