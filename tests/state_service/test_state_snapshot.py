"""Snapshots: the same answers to the last bit, each segment written once, forgotten when due."""

import asyncio
import dataclasses
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import numpy as np

from state_service.batch_keys import BatchCounts, SeenKey
from state_service.formats import decode_keys, decode_segment_block
from state_service.service import StateService
from state_service.settings import Settings
from state_service.snapshot import SnapshotStore
from state_service.store import Store
from state_service.wire import Batch

NOW = 1_000_000.0
USERS = ["a/b", "ünï", "100%", "x\ny", "u"]
QUANTILES = (0.0, 0.1, 0.5, 1.0)


@asynccontextmanager
async def _service(folder: Path, now: float = NOW, **settings: Any) -> AsyncIterator[StateService]:
    """Give a restored service whose clock stands still; it snapshots when the block ends."""
    # A long interval: tests take their snapshots themselves.
    given: dict[str, Any] = {
        "database": str(folder / "state.db"),
        "snapshot_interval_seconds": 3600.0,
    } | settings
    service = await StateService.open(Settings(**given), clock=lambda: now)
    running = asyncio.create_task(service.run())
    try:
        for _ in range(2000):
            if service.phase == "ready":
                break
            await asyncio.sleep(0.001)
        yield service
    finally:
        service.stop()
        await running
        await service.close()


def _batch(key: str, moment: float, count: int = 50) -> Batch:
    generator = np.random.default_rng(len(key))
    return Batch(
        key,
        [USERS[index % len(USERS)] for index in range(count)],
        (moment - generator.integers(0, 99, count)).astype(float),
        generator.standard_normal(count) * 10.0 ** generator.integers(-9, 9, count),
    )


def _one(key: str, user_id: str, timestamp: float, score: float) -> Batch:
    return Batch(key, [user_id], np.array([timestamp]), np.array([score]))


def _rows(folder: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(folder / "state.db")) as database:
        return database.execute(query).fetchall()


def _keys(folder: Path) -> list[str]:
    """Return the keys in the snapshot on disk."""
    query = (
        "SELECT payload, crc32 FROM block JOIN key_set ON number >= first_block "
        "AND number < first_block + blocks ORDER BY number"
    )
    return [seen.key for row in _rows(folder, query) for seen in decode_keys(*row)]


async def test_what_comes_back_is_what_was_there_to_the_last_bit(tmp_path: Path) -> None:
    async with _service(tmp_path) as service:
        await service.record([_batch("one", NOW), _batch("eleven", NOW)])
        before = [service.windows.summary(user, NOW, quantiles=QUANTILES) for user in USERS]
        medians = service.windows.medians(USERS, NOW)
        live, users = service.windows.live_events, service.windows.active_users
    async with _service(tmp_path) as service:
        service.windows.check()
        after = [service.windows.summary(user, NOW, quantiles=QUANTILES) for user in USERS]
        # Only a mean is a sum of rounded terms, whose last bit depends on their order.
        assert [dataclasses.replace(s, mean=None) for s in after] == [
            dataclasses.replace(s, mean=None) for s in before
        ]
        for old, new in zip(medians, service.windows.medians(USERS, NOW), strict=True):
            assert old.tobytes() == new.tobytes()
        assert (service.windows.live_events, service.windows.active_users) == (live, users)
        assert service.restored.events == live
        assert service.restored.duration_seconds is not None


async def test_extreme_scores_survive(tmp_path: Path) -> None:
    scores = [1.7976931348623157e308, 5e-324, -0.0, -1e300]
    async with _service(tmp_path) as service:
        for number, score in enumerate(scores):
            await service.record([_one(f"k{number}", f"u{number}", NOW, score)])
    async with _service(tmp_path) as service:
        medians = service.windows.medians([f"u{number}" for number in range(4)], NOW).medians
        assert medians.tobytes() == (np.array(scores) + 0.0).tobytes()  # as 0.0 is -0.0 answered
        (segment,) = service.windows.segments
        assert set(map(str, segment.scores.tolist())) == set(map(str, scores))


async def test_batches_are_known_after_a_restart_with_what_they_counted(tmp_path: Path) -> None:
    batch = Batch(
        "k", ["u", "u", "u"], np.array([NOW, NOW - 999, NOW + 999]), np.array([1.0, 2.0, 3.0])
    )
    async with _service(tmp_path) as service:
        await service.record([batch])
    async with _service(tmp_path) as service:
        (outcome,) = await service.record([batch])
        assert outcome.duplicate
        assert outcome.counts == BatchCounts(accepted=1, late=1, future=1)
        assert service.windows.summary("u", NOW).count == 1


async def test_a_key_is_kept_exactly_as_long_as_its_events_can_be_asked_for(tmp_path: Path) -> None:
    async with _service(tmp_path) as service:
        await service.record([_one("k", "u", NOW + 60, 1.0)])
    async with _service(tmp_path, NOW + 360) as service:
        assert service.keys.find("k") is not None
        assert service.windows.summary("u", NOW + 360).count == 1
    async with _service(tmp_path, NOW + 361) as service:
        assert service.keys.find("k") is None
        assert service.windows.summary("u", NOW + 361).count == 0
    assert _keys(tmp_path) == []


async def test_a_segment_is_written_once_and_a_snapshot_of_nothing_new_writes_none(
    tmp_path: Path,
) -> None:
    # Were a segment written twice, its row would be replaced and this trigger would tell.
    async with _service(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        database.executescript(
            "CREATE TABLE written (number INTEGER);"
            "CREATE TRIGGER watch AFTER INSERT ON segment "
            "BEGIN INSERT INTO written VALUES (new.number); END;"
        )
    async with _service(tmp_path) as service:
        await service.record([_batch("one", NOW)])
        assert await service.snapshot()
        assert await service.snapshot()
        await service.record([_batch("three", NOW)])
        assert await service.snapshot()
    async with _service(tmp_path) as service:
        await service.record([_batch("seventh", NOW)])
    assert _rows(tmp_path, "SELECT number FROM written") == [(1,), (2,), (3,)]


async def test_expired_segments_are_deleted_so_the_file_stays_as_large_as_the_window(
    tmp_path: Path,
) -> None:
    largest = 0
    for step in range(12):
        async with _service(tmp_path, NOW + 200 * step) as service:
            await service.record([_batch(f"key {step}", NOW + 200 * step, count=2000)])
        rows = _rows(tmp_path, "SELECT number FROM segment")
        assert len(rows) <= 4
        size = (tmp_path / "state.db").stat().st_size
        if step == 4:
            largest = size
    assert size <= 1.5 * largest


async def test_a_snapshot_becomes_valid_in_one_transaction(tmp_path: Path) -> None:
    """While a snapshot is written, a reader sees either all of it or nothing."""
    async with _service(tmp_path, durability="snapshot") as service:
        await service.record([_batch("one", NOW)])
        assert await service.snapshot()
        with closing(sqlite3.connect(tmp_path / "state.db")) as database:
            database.execute(
                "CREATE TRIGGER stop BEFORE UPDATE ON covered "
                "BEGIN SELECT RAISE(ABORT, 'stopped on the way'); END"
            )
        await service.record([_batch("three", NOW)])
        for _ in range(2):
            assert not await service.snapshot()
            assert _rows(tmp_path, "SELECT number FROM segment") == [(1,)]
            assert _keys(tmp_path) == ["one"]
        with closing(sqlite3.connect(tmp_path / "state.db")) as database:
            database.execute("DROP TRIGGER stop")
        assert await service.snapshot()
        assert len(_rows(tmp_path, "SELECT number FROM segment")) == 2
        assert sorted(_keys(tmp_path)) == ["one", "three"]
        # Nothing is left of the attempts that failed.
        blocks = (
            "SELECT sum(blocks) FROM (SELECT blocks FROM segment UNION ALL SELECT 1 FROM key_set)"
        )
        assert _rows(tmp_path, "SELECT count(*) FROM block") == _rows(tmp_path, blocks)


async def test_what_a_snapshot_holds_does_not_change_while_it_is_being_written(
    tmp_path: Path,
) -> None:
    """Events that arrive meanwhile, and their keys, belong to the next one, together."""
    async with _service(tmp_path, durability="snapshot") as service:
        await service.record([_batch("one", NOW)])
        writing = asyncio.create_task(service.snapshot())
        steps = 0
        while not writing.done():
            await asyncio.sleep(0)
            await service.record([_one(f"meanwhile {steps}", "u", NOW, 1.0)])
            steps += 1
        assert await writing
        assert steps >= 2
        query = "SELECT payload, crc32 FROM block JOIN segment ON block.number = first_block"
        rows = _rows(tmp_path, query)
        assert sum(len(decode_segment_block(*row).scores) for row in rows) == 50
        assert _keys(tmp_path) == ["one"]
    async with _service(tmp_path) as service:
        assert service.windows.live_events == 50 + steps


async def test_keys_come_back_oldest_first_and_only_those_that_are_still_remembered(
    tmp_path: Path,
) -> None:
    store = await Store.open(tmp_path / "deep" / "er" / "state.db")
    keys = [
        SeenKey("old", NOW - 9, BatchCounts(4, 5, 6)),
        SeenKey("new", NOW + 0.1, BatchCounts(1, 2, 3)),
    ]
    snapshot = await SnapshotStore.open(store)
    await snapshot.commit([], await snapshot.write_keys(keys[:1]), NOW - 10, covered=1)
    await snapshot.commit([], await snapshot.write_keys(keys[1:]), NOW - 10, covered=2)
    for reader in (snapshot, await SnapshotStore.open(store)):
        assert await reader.load_keys(NOW - 10) == (keys, [])
        assert await reader.load_keys(NOW) == ([keys[1]], [])
    await snapshot.commit([], None, NOW, covered=3)
    await snapshot.sweep()
    assert await snapshot.load_keys(NOW - 10) == ([keys[1]], [])
    assert await store.read("SELECT count(*) FROM block") == [(1,)]
    assert store.size_bytes() > 0
    await store.close()
