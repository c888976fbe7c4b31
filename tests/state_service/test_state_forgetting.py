"""DELETE /users/{user_id}: nothing of the user is left anywhere, and nothing brings it back."""

import asyncio
import signal
import sqlite3
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiosqlite
import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from state_service.errors import NotDurableError
from state_service.inspection import inspect
from state_service.journal import Journal
from state_service.schema import SCHEMA_VERSION
from state_service.store import Store
from tests.state_service.state_support import Server, ServiceProcess, batch, launched, serving

WHO = "the user to be forgotten / ünï"
PATH = "/users/the%20user%20to%20be%20forgotten%20%2F%20%C3%BCn%C3%AF"
SCORE = -1.2345678901234567e-89  # whose bytes nothing else has
MARKS = (WHO.encode(), struct.pack("<d", SCORE))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _traces(folder: Path) -> list[tuple[str, int]]:
    """Return where in which file the user's id or score is."""
    found = []
    for path in _files(folder):
        content = path.read_bytes()
        found += [(path.name, content.find(mark)) for mark in MARKS if mark in content]
    return found


def _others(count: int) -> list[str]:
    return [f"other {number}" for number in range(count)]


async def _record(server: Server | ServiceProcess, key: str, count: int = 40) -> None:
    """Record events of the user among those of others."""
    names = [WHO if index % 4 == 0 else f"other {index % 7}" for index in range(count)]
    scores = [SCORE if name == WHO else index / 7 for index, name in enumerate(names)]
    answer = await server.record(batch(key, names, scores))
    assert answer["accepted"] == count


async def _count(server: Server | ServiceProcess, path: str = PATH) -> int:
    count: int = (await server.get(f"{path}/median"))["count"]
    return count


async def _forget(server: Server | ServiceProcess, path: str = PATH) -> Any:
    answer = await server.ask("DELETE", path)
    assert answer.status == 200, answer.text
    return answer.body


async def _in_memtable(server: Server) -> None:
    await _record(server, "one")


async def _in_a_pending_run(server: Server) -> None:
    await _record(server, "one")
    server.service.windows.freeze()
    await _record(server, "two")


async def _in_segments(server: Server) -> None:
    for key in "abcd":
        await _record(server, key)
        assert await server.service.snapshot()
    await _record(server, "not in a snapshot yet")


async def _in_merged_segments(server: Server) -> None:
    for number in range(20):
        await _record(server, f"k{number}")
        assert await server.service.snapshot()
    assert len(server.service.windows.segments) < 20


async def _in_large_blocks(server: Server) -> None:
    for number in range(5):
        await _record(server, f"large {number}", 14_000)
    assert await server.service.snapshot()


async def _in_many_journal_rows(server: Server) -> None:
    for number in range(300):
        await _record(server, f"k{number}", 1 + number * 37 % 113)


PLACES: list[Callable[[Server], Any]] = [
    _in_memtable,
    _in_a_pending_run,
    _in_segments,
    _in_merged_segments,
    _in_large_blocks,
    _in_many_journal_rows,
]


@pytest.mark.parametrize("durability", ["journal", "snapshot"])
@pytest.mark.parametrize("fill", PLACES, ids=lambda fill: fill.__name__.strip("_"))
async def test_nothing_is_left_wherever_the_user_was(
    tmp_path: Path, fill: Callable[[Server], Any], durability: str
) -> None:
    async with serving(tmp_path, durability=durability) as server:
        await fill(server)
        mine = await _count(server)
        live = server.service.windows.live_events
        before = await server.get("/users/other%201/stats?q=0.1,0.5,0.9")
        answer = await _forget(server)
        assert answer["user_id"] == WHO
        assert answer["forgotten_events"] == mine > 0
        assert abs(answer["forgotten_at"] - time.time()) < 60
        assert _traces(tmp_path) == []
        server.service.windows.check()
        assert server.service.windows.live_events == live - mine
        assert await _count(server) == 0
        after = await server.get("/users/other%201/stats?q=0.1,0.5,0.9")
        # A mean's last bit depends on the order of the sum, which a merge meanwhile may change.
        assert after.pop("mean") == pytest.approx(before.pop("mean"), rel=1e-14)
        assert after == before
        assert WHO not in server.service.windows.all_medians_question(time.time()).ids
        assert (await _forget(server))["forgotten_events"] == 0
    assert inspect(tmp_path / "state.db").problems == []
    async with serving(tmp_path, durability=durability) as server:
        assert _traces(tmp_path) == []
        assert await _count(server) == 0
        assert server.service.restored.events == live - mine
        assert server.service.restored.damaged_blocks == 0
        after = await server.get("/users/other%201/stats?q=0.1,0.5,0.9")
        assert after | {"mean": 0} == before | {"mean": 0}


async def test_the_marks_are_found_where_nothing_was_forgotten(tmp_path: Path) -> None:
    """Or the other tests would prove nothing."""
    async with serving(tmp_path) as server:
        await _record(server, "one")
        assert {name for name, _ in _traces(tmp_path)} == {"state.db-wal"}
        assert await server.service.snapshot()
    assert len(_traces(tmp_path)) == 2


async def test_an_unknown_user_is_forgotten_too(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        answer = await _forget(server, "/users/nobody")
        assert (answer["user_id"], answer["forgotten_events"]) == ("nobody", 0)
        await server.problem("DELETE", f"/users/{'u' * 257}", 400, "invalid_request")
        await server.problem("DELETE", "/users/u?dry_run=1", 400, "invalid_request")
        assert (await server.get("/stats"))["users_forgotten"] == 1


async def test_what_comes_afterwards_is_a_newcomers(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await _in_segments(server)
        await _forget(server)
        await server.record(batch("new", [WHO], [0.5]))
        assert (await server.get(f"{PATH}/median"))["median"] == 0.5
        server.service.windows.check()
    async with serving(tmp_path) as server:
        assert (await server.get(f"{PATH}/stats"))["count"] == 1


async def test_a_kill_right_after_the_answer_brings_nothing_back(tmp_path: Path) -> None:
    for round_number in range(2):
        async with launched(tmp_path, "--snapshot-interval-seconds", "0.05") as process:
            assert await _count(process) == 0
            for number in range(10):
                await _record(process, f"{round_number} {number}")
                await asyncio.sleep(0.01)
            assert (await _forget(process))["forgotten_events"] == 100
            await process.stop(signal.SIGKILL)
        assert _traces(tmp_path) == []
    async with launched(tmp_path) as process:
        assert await _count(process) == 0
        assert await _count(process, "/users/other%201") > 0
        assert _traces(tmp_path) == []


async def test_an_event_acknowledged_after_the_answer_survives_a_kill(tmp_path: Path) -> None:
    async with launched(tmp_path) as process:
        await _record(process, "before")
        await _forget(process)
        await process.record(batch("after", [WHO], [0.5]))
        await process.stop(signal.SIGKILL)
    async with launched(tmp_path) as process:
        assert (await process.get(f"{PATH}/stats"))["max"] == 0.5
        assert await _count(process) == 1


async def test_events_that_come_meanwhile_are_there_or_not_but_never_older_ones(
    tmp_path: Path,
) -> None:
    """While the user is forgotten again and again, and the service killed, events keep coming."""
    acknowledged_since: list[float] = []
    for round_number in range(2):
        async with launched(tmp_path, "--snapshot-interval-seconds", "0.02") as process:

            async def send(process: ServiceProcess = process, name: int = round_number) -> None:
                for number in range(10_000):
                    score = name * 10_000.0 + number
                    await process.record(batch(f"{name} {number}", [WHO, "other"], [score, 1.0]))
                    acknowledged_since.append(score)

            sending = asyncio.create_task(send())
            for _ in range(5):
                await asyncio.sleep(0.03)
                started = list(acknowledged_since)
                await _forget(process)
                oldest = (await process.get(f"{PATH}/stats"))["min"]
                assert oldest is None or oldest > max(started, default=-1)
                acknowledged_since.clear()  # some came after the cut, some not
            settled = len(acknowledged_since)
            for _ in range(2000):
                if len(acknowledged_since) >= settled + 3:
                    break
                await asyncio.sleep(0.001)
            surely = acknowledged_since[settled + 1 :]
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await process.stop(signal.SIGKILL)
        async with launched(tmp_path) as process:
            answer = await process.get(f"{PATH}/stats")
            assert answer["max"] >= max(surely)
            assert answer["min"] > max(started)
            assert (await process.get("/stats"))["restore"]["damaged_journal_rows"] == 0


async def test_many_at_once_are_served_together(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        users = _others(50)
        await server.record(batch("k", users * 3, [0.5] * 150))
        paths = [f"/users/other%20{number}" for number in range(50)]
        answers = await asyncio.gather(*(_forget(server, path) for path in paths))
        assert [answer["forgotten_events"] for answer in answers] == [3] * 50
        assert len({answer["forgotten_at"] for answer in answers}) < 50
        assert server.service.windows.live_events == 0
        server.service.windows.check()


async def test_a_group_on_its_way_is_forgotten_with_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was judged before and is applied before: it must not come after."""
    async with serving(tmp_path) as server:
        journal, may_go = server.service.journal, asyncio.Event()
        append = journal.append

        async def held(*arguments: Any) -> None:
            await may_go.wait()
            await append(*arguments)

        monkeypatch.setattr(journal, "append", held)
        recording = asyncio.create_task(_record(server, "on its way"))
        await asyncio.sleep(0.05)
        forgetting = asyncio.create_task(_forget(server))
        await asyncio.sleep(0.05)
        assert not forgetting.done()
        may_go.set()
        await recording
        assert (await forgetting)["forgotten_events"] == 10
        assert await _count(server) == 0
        assert _traces(tmp_path) == []


async def test_a_snapshot_that_is_being_written_leaves_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for number in range(5):
            await _record(server, f"large {number}", 14_000)
        writing = asyncio.create_task(server.service.snapshot())
        for _ in range(10):
            await asyncio.sleep(0)
        await _forget(server)
        assert await writing
        assert _traces(tmp_path) == []
    assert _traces(tmp_path) == []


# --- failures ---------------------------------------------------------------------------------


async def test_a_disk_without_room_forgets_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as server:
        await _record(server, "one")
        with monkeypatch.context() as patch:
            patch.setattr(Store, "transaction", _no_room)
            answer = await server.problem("DELETE", PATH, 503, "not_durable")
        assert answer.body["detail"].startswith("nothing was forgotten")
        assert await _count(server) == 10
        assert (await _forget(server))["forgotten_events"] == 10


async def test_what_could_not_be_erased_is_erased_by_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as server:
        await _in_segments(server)
        steps = [(Store, "write"), (Store, "delete"), (Journal, "rewrite"), (Store, "fold_log")]
        for owner, name in steps:
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, _fails)
                answer = await server.problem("DELETE", PATH, 503, "not_durable")
            assert "forgotten in memory" in answer.body["detail"]
            assert await _count(server) == 0
            assert _traces(tmp_path)
        assert (await _forget(server))["forgotten_events"] == 0
        assert _traces(tmp_path) == []
        assert (await server.get("/stats"))["users_forgotten"] == 1


def _no_room(_store: Store) -> Any:
    raise aiosqlite.OperationalError("database or disk is full")


async def _fails(*_arguments: Any) -> None:
    raise aiosqlite.OperationalError("database or disk is full")


async def test_a_reader_that_keeps_the_log_delays_the_answer_and_nobody_else(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server:
        await _record(server, "one")
        with closing(sqlite3.connect(tmp_path / "state.db")) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM journal").fetchone()
            forgetting = asyncio.create_task(_forget(server))
            for number in range(20):
                await server.record(batch(f"meanwhile {number}", ["other"], [1.0]))
            await asyncio.sleep(0.3)
            assert not forgetting.done()
        assert (await forgetting)["forgotten_events"] == 10
        assert _traces(tmp_path) == []


async def test_damaged_records_are_erased_because_nobody_knows_whose_they_were(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server:
        await _record(server, "one")
        assert await server.service.snapshot()
        await _record(server, "two")
        with closing(sqlite3.connect(tmp_path / "state.db")) as source:
            copy = tmp_path / "copy"
            copy.mkdir()
            with closing(sqlite3.connect(copy / "state.db")) as target:
                source.backup(target)
    with closing(sqlite3.connect(copy / "state.db")) as database:
        database.executescript("UPDATE block SET crc32 = 1; UPDATE journal SET crc32 = 1")
    async with serving(copy) as server:
        assert server.service.restored.damaged_journal_rows == 1
        assert _traces(copy)
        assert (await _forget(server))["forgotten_events"] == 0
        assert _traces(copy) == []
        await server.record(batch("new", ["other"], [1.0]))
    assert inspect(copy / "state.db").problems == []
    async with serving(copy) as server:
        assert server.service.restored.damaged_blocks == 0
        assert server.service.restored.damaged_journal_rows == 0


# --- replays ----------------------------------------------------------------------------------


async def test_a_replay_of_what_came_before_is_left_out_also_after_restarts(tmp_path: Path) -> None:
    received = time.time()
    body = batch("replayed", [WHO, "other", WHO], [1.0, 2.0, 3.0], received_at=received)
    late = batch("late", [WHO, "other"], [1.0, 2.0], [received - 9999] * 2, received_at=received)
    async with serving(tmp_path) as server:
        await _record(server, "one")
        await _forget(server)
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
        assert await _count(server) == 0
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
        assert await _count(server) == 2


async def test_a_large_replay_is_looked_through_too(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        received = time.time()
        await _forget(server)
        users = [*_others(5000), WHO, *_others(5000)]
        body = batch("replayed", users, [1.0] * len(users), received_at=received)
        answer = await server.record(body)
        assert (answer["accepted"], answer["forgotten"]) == (10_000, 1)


async def test_a_tombstone_holds_for_its_time_and_the_oldest_makes_room(tmp_path: Path) -> None:
    limits: dict[str, Any] = {"forget_replays_seconds": 100.0, "max_forgotten_users": 2}
    now = time.time()
    async with serving(tmp_path, **limits) as server:
        for seconds, user in enumerate("abc"):
            server.set_clock(now + seconds)
            await _forget(server, f"/users/{user}")
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
            await _forget(server)
        with closing(sqlite3.connect(tmp_path / name / "state.db")) as database:
            assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
            hashes += [row for (row,) in database.execute("SELECT user_hash FROM forgotten")]
    assert len(set(hashes)) == 2
    assert _traces(tmp_path) == []


# --- the file ---------------------------------------------------------------------------------

sizes = st.lists(st.sampled_from([1, 3, 20, 60, 250]), min_size=1, max_size=30)
steps = st.lists(st.one_of(sizes, st.just("snapshot")), min_size=1, max_size=12)


@settings(max_examples=12, deadline=None)
@given(steps=steps)
def test_whatever_was_written_before_nothing_is_left(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    """SQLite moves rows about in its pages, and leaves copies of them behind."""
    folder = tmp_path_factory.mktemp("file")

    async def live() -> None:
        async with serving(folder) as server:
            for number, step in enumerate(steps):
                if step == "snapshot":
                    assert await server.service.snapshot()
                    continue
                for place, size in enumerate(step):
                    await _record(server, f"{number} {place}", size)
            await _forget(server)
            assert _traces(folder) == []
        assert _traces(folder) == []

    asyncio.run(live())


async def test_a_failure_nobody_foresaw_is_told_and_the_next_one_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as server:
        await _in_segments(server)
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "cover", _is_broken)
            await server.problem("DELETE", PATH, 500, "internal_error")
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "rewrite", _fails)
            with pytest.raises(NotDurableError):
                await server.service.forget(WHO)
        await _forget(server)
        assert _traces(tmp_path) == []


async def _is_broken(*_arguments: Any) -> None:
    raise RuntimeError("unforeseen")
