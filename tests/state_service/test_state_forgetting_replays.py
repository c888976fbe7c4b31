"""What a forgotten user did before does not come back with a replay."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from state_service.schema import SCHEMA_VERSION
from tests.state_service.forgetting_support import WHO, count_of, forget, others, record, traces
from tests.state_service.state_support import batch, serving


async def test_a_replay_of_what_came_before_is_left_out_also_after_restarts(tmp_path: Path) -> None:
    received = time.time()
    body = batch("replayed", [WHO, "other", WHO], [1.0, 2.0, 3.0], received_at=received)
    late = batch("late", [WHO, "other"], [1.0, 2.0], [received - 9999] * 2, received_at=received)
    async with serving(tmp_path) as server:
        await record(server, "one")
        await forget(server)
        answer = await server.record(body)
        assert answer == {
            "accepted": 1,
            "late": 0,
            "future": 0,
            "forgotten": 2,
            "duplicates": 0,
            "batches": [{"accepted": 1, "late": 0, "future": 0, "duplicate": False}],
        }
        again = await server.record(body)
        assert (again["accepted"], again["forgotten"], again["duplicates"]) == (0, 0, 3)
        assert await count_of(server) == 0
    async with serving(tmp_path) as server:
        answer = await server.record(late)
        assert (answer["late"], answer["forgotten"]) == (1, 1)
        new = batch("new", [WHO], [1.0], received_at=time.time())
        assert (await server.record(new))["accepted"] == 1
        unknown = batch("no time", [WHO], [1.0])
        assert (await server.record(unknown))["accepted"] == 1
        stats = await server.get("/stats")
        assert (stats["forgotten"], stats["tombstones"]) == (1, 1)
        assert (
            'medianserve_events_total{outcome="forgotten"} 1.0'
            in (await server.ask("GET", "/metrics")).text
        )
        assert await count_of(server) == 2


async def test_a_large_replay_is_looked_through_too(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        received = time.time()
        await forget(server)
        users = [*others(5000), WHO, *others(5000)]
        body = batch("replayed", users, [1.0] * len(users), received_at=received)
        answer = await server.record(body)
        assert (answer["accepted"], answer["forgotten"]) == (10_000, 1)


async def test_a_tombstone_holds_for_its_time_and_the_oldest_makes_room(tmp_path: Path) -> None:
    limits: dict[str, Any] = {"forget_replays_seconds": 100.0, "max_forgotten_users": 2}
    now = time.time()
    async with serving(tmp_path, **limits) as server:
        for seconds, user in enumerate("abc"):
            server.set_clock(now + seconds)
            await forget(server, f"/users/{user}")
        assert (await server.get("/stats"))["limit_hits"]["max_forgotten_users"] == 1
        replay = batch("k", list("abcd"), [1.0] * 4, received_at=now)
        answer = await server.record(replay)
        assert (answer["accepted"], answer["forgotten"]) == (2, 2)
    async with serving(tmp_path, **limits) as server:
        assert (await server.get("/stats"))["tombstones"] == 2
        server.set_clock(now + 102)
        again = batch("k2", list("abcd"), [1.0] * 4, received_at=now)
        assert (await server.record(again))["forgotten"] == 1
        server.set_clock(now + 103)
        later = batch("k3", list("abcd"), [1.0] * 4, received_at=now)
        assert (await server.record(later))["forgotten"] == 0
        assert (await server.get("/stats"))["tombstones"] == 0


async def test_no_id_is_in_a_tombstone_and_two_databases_differ(tmp_path: Path) -> None:
    hashes = []
    for name in "ab":
        async with serving(tmp_path / name) as server:
            await forget(server)
        with closing(sqlite3.connect(tmp_path / name / "state.db")) as database:
            assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
            hashes += [row for (row,) in database.execute("SELECT user_hash FROM forgotten")]
    assert len(set(hashes)) == 2
    assert traces(tmp_path) == []
