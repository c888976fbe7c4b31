"""Forgetting when the disk, a reader or the code stands in the way: told, and made good."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from state_service.errors import NotDurableError
from state_service.inspection import inspect
from state_service.journal import Journal
from state_service.store import Store
from tests.state_service.forgetting_support import (
    PATH,
    WHO,
    count_of,
    forget,
    in_segments,
    record,
    traces,
)
from tests.state_service.state_support import batch, serving


async def test_a_disk_without_room_forgets_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as server:
        await record(server, "one")
        with monkeypatch.context() as patch:
            patch.setattr(Store, "transaction", _no_room)
            answer = await server.problem("DELETE", PATH, 503, "not_durable")
        assert answer.body["detail"].startswith("nothing was forgotten")
        assert await count_of(server) == 10
        assert (await forget(server))["forgotten_events"] == 10


async def test_what_could_not_be_erased_is_erased_by_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as server:
        await in_segments(server)
        steps = [(Store, "write"), (Store, "delete"), (Journal, "rewrite"), (Store, "fold_log")]
        for owner, name in steps:
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, _fails)
                answer = await server.problem("DELETE", PATH, 503, "not_durable")
            assert "forgotten in memory" in answer.body["detail"]
            assert await count_of(server) == 0
            assert traces(tmp_path)
        assert (await forget(server))["forgotten_events"] == 0
        assert traces(tmp_path) == []
        assert (await server.get("/stats"))["users_forgotten"] == 1


def _no_room(_store: Store) -> Any:
    raise aiosqlite.OperationalError("database or disk is full")


async def _fails(*_arguments: Any) -> None:
    raise aiosqlite.OperationalError("database or disk is full")


async def test_a_reader_that_keeps_the_log_delays_the_answer_and_nobody_else(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server:
        await record(server, "one")
        with closing(sqlite3.connect(tmp_path / "state.db")) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM journal").fetchone()
            forgetting = asyncio.create_task(forget(server))
            for number in range(20):
                await server.record(batch(f"meanwhile {number}", ["other"], [1.0]))
            await asyncio.sleep(0.3)
            assert not forgetting.done()
        assert (await forgetting)["forgotten_events"] == 10
        assert traces(tmp_path) == []


async def test_damaged_records_are_erased_because_nobody_knows_whose_they_were(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server:
        await record(server, "one")
        assert await server.service.snapshot()
        await record(server, "two")
        with closing(sqlite3.connect(tmp_path / "state.db")) as source:
            copy = tmp_path / "copy"
            copy.mkdir()
            with closing(sqlite3.connect(copy / "state.db")) as target:
                source.backup(target)
    with closing(sqlite3.connect(copy / "state.db")) as database:
        database.executescript("UPDATE block SET crc32 = 1; UPDATE journal SET crc32 = 1")
    async with serving(copy) as server:
        assert server.service.restored.damaged_journal_rows == 1
        assert traces(copy)
        assert (await forget(server))["forgotten_events"] == 0
        assert traces(copy) == []
        await server.record(batch("new", ["other"], [1.0]))
    assert inspect(copy / "state.db").problems == []
    async with serving(copy) as server:
        assert server.service.restored.damaged_blocks == 0
        assert server.service.restored.damaged_journal_rows == 0


async def test_a_failure_nobody_foresaw_is_told_and_the_next_one_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as server:
        await in_segments(server)
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "cover", _is_broken)
            await server.problem("DELETE", PATH, 500, "internal_error")
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "rewrite", _fails)
            with pytest.raises(NotDurableError):
                await server.service.forget(WHO)
        await forget(server)
        assert traces(tmp_path) == []


async def _is_broken(*_arguments: Any) -> None:
    raise RuntimeError("unforeseen")
