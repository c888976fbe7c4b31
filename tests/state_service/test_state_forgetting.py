"""DELETE /users/{user_id}: nothing of the user is left anywhere, wherever it was."""

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from state_service.inspection import inspect
from tests.state_service.forgetting_support import (
    PATH,
    WHO,
    count_of,
    forget,
    in_segments,
    others,
    record,
    traces,
)
from tests.state_service.state_support import Server, ServiceProcess, batch, launched, serving


async def _in_memtable(server: Server) -> None:
    await record(server, "one")


async def _in_a_pending_run(server: Server) -> None:
    await record(server, "one")
    server.service.windows.freeze()
    await record(server, "two")


async def _in_merged_segments(server: Server) -> None:
    for number in range(20):
        await record(server, f"k{number}")
        assert await server.service.snapshot()
    assert len(server.service.windows.segments) < 20


async def _in_large_blocks(server: Server) -> None:
    for number in range(5):
        await record(server, f"large {number}", 14_000)
    assert await server.service.snapshot()


async def _in_many_journal_rows(server: Server) -> None:
    for number in range(300):
        await record(server, f"k{number}", 1 + number * 37 % 113)


PLACES: list[Callable[[Server], Any]] = [
    _in_memtable,
    _in_a_pending_run,
    in_segments,
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
        mine = await count_of(server)
        live = server.service.windows.live_events
        before = await server.get("/users/other%201/stats?q=0.1,0.5,0.9")
        answer = await forget(server)
        assert answer["user_id"] == WHO
        assert answer["forgotten_events"] == mine > 0
        assert abs(answer["forgotten_at"] - time.time()) < 60
        assert traces(tmp_path) == []
        server.service.windows.check()
        assert server.service.windows.live_events == live - mine
        assert await count_of(server) == 0
        after = await server.get("/users/other%201/stats?q=0.1,0.5,0.9")
        # A mean's last bit depends on the order of the sum, which a merge meanwhile may change.
        assert after.pop("mean") == pytest.approx(before.pop("mean"), rel=1e-14)
        assert after == before
        assert WHO not in server.service.windows.all_medians_question(time.time()).ids
        assert (await forget(server))["forgotten_events"] == 0
    assert inspect(tmp_path / "state.db").problems == []
    async with serving(tmp_path, durability=durability) as server:
        assert traces(tmp_path) == []
        assert await count_of(server) == 0
        assert server.service.restored.events == live - mine
        assert server.service.restored.damaged_blocks == 0
        after = await server.get("/users/other%201/stats?q=0.1,0.5,0.9")
        assert after | {"mean": 0} == before | {"mean": 0}


async def test_the_marks_are_found_where_nothing_was_forgotten(tmp_path: Path) -> None:
    """Or the other tests would prove nothing."""
    async with serving(tmp_path) as server:
        await record(server, "one")
        assert {name for name, _ in traces(tmp_path)} == {"state.db-wal"}
        assert await server.service.snapshot()
    assert len(traces(tmp_path)) == 2


async def test_an_unknown_user_is_forgotten_too(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        answer = await forget(server, "/users/nobody")
        assert (answer["user_id"], answer["forgotten_events"]) == ("nobody", 0)
        await server.problem("DELETE", f"/users/{'u' * 257}", 400, "invalid_request")
        await server.problem("DELETE", "/users/u?dry_run=1", 400, "invalid_request")
        assert (await server.get("/stats"))["users_forgotten"] == 1


async def test_what_comes_afterwards_is_a_newcomers(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await in_segments(server)
        await forget(server)
        await server.record(batch("new", [WHO], [0.5]))
        assert (await server.get(f"{PATH}/median"))["median"] == 0.5
        server.service.windows.check()
    async with serving(tmp_path) as server:
        assert (await server.get(f"{PATH}/stats"))["count"] == 1


async def test_a_kill_right_after_the_answer_brings_nothing_back(tmp_path: Path) -> None:
    for round_number in range(2):
        async with launched(tmp_path, "--snapshot-interval-seconds", "0.05") as process:
            assert await count_of(process) == 0
            for number in range(10):
                await record(process, f"{round_number} {number}")
                await asyncio.sleep(0.01)
            assert (await forget(process))["forgotten_events"] == 100
            await process.stop(signal.SIGKILL)
        assert traces(tmp_path) == []
    async with launched(tmp_path) as process:
        assert await count_of(process) == 0
        assert await count_of(process, "/users/other%201") > 0
        assert traces(tmp_path) == []


async def test_an_event_acknowledged_after_the_answer_survives_a_kill(tmp_path: Path) -> None:
    async with launched(tmp_path) as process:
        await record(process, "before")
        await forget(process)
        await process.record(batch("after", [WHO], [0.5]))
        await process.stop(signal.SIGKILL)
    async with launched(tmp_path) as process:
        assert (await process.get(f"{PATH}/stats"))["max"] == 0.5
        assert await count_of(process) == 1


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
                await forget(process)
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
        users = others(50)
        await server.record(batch("k", users * 3, [0.5] * 150))
        paths = [f"/users/other%20{number}" for number in range(50)]
        answers = await asyncio.gather(*(forget(server, path) for path in paths))
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
        recording = asyncio.create_task(record(server, "on its way"))
        await asyncio.sleep(0.05)
        forgetting = asyncio.create_task(forget(server))
        await asyncio.sleep(0.05)
        assert not forgetting.done()
        may_go.set()
        await recording
        assert (await forgetting)["forgotten_events"] == 10
        assert await count_of(server) == 0
        assert traces(tmp_path) == []


async def test_a_snapshot_that_is_being_written_leaves_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for number in range(5):
            await record(server, f"large {number}", 14_000)
        writing = asyncio.create_task(server.service.snapshot())
        for _ in range(10):
            await asyncio.sleep(0)
        await forget(server)
        assert await writing
        assert traces(tmp_path) == []
    assert traces(tmp_path) == []


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
                    await record(server, f"{number} {place}", size)
            await forget(server)
            assert traces(folder) == []
        assert traces(folder) == []

    asyncio.run(live())
