"""A replay through the service: its clock is shown, and survives a kill and a forgotten user."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from state_service.event_clock import PATIENCE_EVENTS
from tests.state_service.state_support import Server, batch, serving

NOW = 1_800_000_000.0
THEN = 1_550_000_000.0


async def _replay(server: Server, begin: int, end: int) -> None:
    """Replay seconds of the past, ten to a request, an event of each of three users in each."""
    for first in range(begin, end, 10):
        stamps = [THEN + second for second in range(first, first + 10) for _ in range(3)]
        users = ["ann", "bob", "eve"] * 10
        body = await server.record(batch(f"r{first}", users, [0.5] * 30, stamps))
        assert body["late"] == 0, first


async def test_the_clock_of_a_replay_is_shown_and_one_fast_producer_ends_nothing(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, clock="event") as server:
        server.set_clock(NOW)
        clock = (await server.get("/stats"))["event_clock"]
        assert clock == {"time": None, "behind_seconds": None, "waiting_seconds": 0}
        await _replay(server, 0, 400)
        await server.record(batch("fast", ["mallory"], [1.0], [NOW]))
        await _replay(server, 400, 800)
        end = THEN + 799
        clock = (await server.get("/stats"))["event_clock"]
        assert clock == {"time": end, "behind_seconds": NOW - end, "waiting_seconds": NOW - end}
        assert (await server.get("/users/ann/median"))["count"] == 301
        metrics = (await server.ask("GET", "/metrics")).text
        assert "medianserve_event_clock_timestamp_seconds 1.550000799e+09" in metrics
        assert "medianserve_event_clock_behind_seconds 2.49999201e+08" in metrics
        page = (await server.ask("GET", "/overview")).text
        assert "ahead of the replay" in page
        assert f"{end:,.3f}" in page
        await server.ask("DELETE", "/users/mallory")
        clock = (await server.get("/stats"))["event_clock"]
        assert (clock["time"], clock["waiting_seconds"]) == (end, 0)
        assert "ahead of the replay" not in (await server.ask("GET", "/overview")).text


@pytest.mark.parametrize("snapshot", [False, True])
async def test_the_clock_is_the_same_after_a_kill(tmp_path: Path, *, snapshot: bool) -> None:
    """In the middle of a gap: what has been counted in a row before it still counts."""
    gap = [THEN + 1e6 + number / 1_000 for number in range(PATIENCE_EVENTS)]
    async with serving(tmp_path / "one", clock="event") as server:
        server.set_clock(NOW)
        await _replay(server, 0, 400)
        await server.record(batch("fast", ["mallory"], [1.0], [NOW]))
        await server.ask("DELETE", "/users/mallory")
        first, rest = gap[:-300], gap[-300:-1]
        for begin in range(0, len(first), 10_000):
            part = first[begin : begin + 10_000]
            await server.record(batch(f"gap {begin}", ["ann"] * len(part), [0.5] * len(part), part))
        if snapshot:
            assert await server.service.snapshot()
        await server.record(batch("more", ["ann"] * 299, [0.5] * 299, rest))
        before = (await server.get("/stats"))["event_clock"]
        assert before["time"] == THEN + 399
        source, copy = tmp_path / "one" / "state.db", tmp_path / "state.db"
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(copy)) as new:
            old.backup(new)  # what a kill at this moment leaves
    async with serving(tmp_path, clock="event") as server:
        server.set_clock(NOW)
        assert (await server.get("/stats"))["event_clock"] == before
        await server.record(batch("last", ["ann"], [0.5], gap[-1:]))
        assert (await server.get("/stats"))["event_clock"]["time"] == gap[-1]
        assert (await server.get("/users/ann/median"))["count"] == PATIENCE_EVENTS


async def test_a_wrong_clocks_batches_neither_fill_the_keys_nor_keep_others(tmp_path: Path) -> None:
    async with serving(tmp_path, clock="event", max_batch_keys=100) as server:
        server.set_clock(NOW)
        await _replay(server, 0, 400)
        for number in range(200):
            # One request, so one commit: the second batch is not the first one's neighbour in time.
            far = batch(f"far {number}", ["mallory"], [1.0], [NOW - number])
            near = batch(
                f"near {number}", ["ann", "bob"], [0.5] * 2, [THEN + 400 + 10 * number] * 2
            )
            await server.record(far, near)
        stats = await server.get("/stats")
        assert stats["batch_keys"] <= 100
        assert (await server.record(near))["duplicates"] == 2
        await server.record(batch("late ones expire", ["ann"], [0.5], [THEN + 2_391]))
        hits = (await server.get("/stats"))["limit_hits"]
        assert hits["max_batch_keys"] > 0
