"""Stopping at an awkward moment loses nothing and breaks nothing."""

import asyncio
import signal
from pathlib import Path

import pytest

from state_service.app_keys import BACKGROUND
from state_service.service import StateService
from state_service.settings import Settings
from tests.state_service.state_support import batch, launched, serving


async def test_stopping_while_snapshots_are_taken_all_the_time(tmp_path: Path) -> None:
    for number in range(20):
        async with serving(tmp_path, snapshot_interval_seconds=0.0005) as server:
            await server.record(batch(f"k{number}", ["u"], [0.5]))
            await asyncio.sleep(0.001)
        assert server.app[BACKGROUND].exception() is None
        assert server.service.snapshots.failures == 0
    async with serving(tmp_path) as server:
        assert (await server.get("/users/u/median"))["count"] == 20


@pytest.mark.parametrize("steps", range(0, 60, 3))
async def test_a_service_stopped_while_it_restores_never_becomes_ready(
    tmp_path: Path, steps: int
) -> None:
    async with serving(tmp_path) as server:
        for number in range(3):
            await server.record(batch(f"k{number}", ["u"], [0.5]))
            await server.service.snapshot()
    service = await StateService.open(Settings(database=str(tmp_path / "state.db")))
    running = asyncio.create_task(service.run())
    for _ in range(steps):
        await asyncio.sleep(0)
    service.stop()
    await running
    await service.close()
    assert service.phase == "stopping"
    async with serving(tmp_path) as server:
        assert (await server.get("/users/u/median"))["count"] == 3


async def test_until_it_has_drained_it_says_that_it_stops_and_then_it_exits_with_0(
    tmp_path: Path,
) -> None:
    program = ("-m", "tests.state_service.state_slow", "1")
    async with launched(tmp_path, program=program) as process:
        bodies = [{"batches": [batch(f"k{number}", ["u"], [0.5])]} for number in range(3)]
        sending = [
            asyncio.create_task(process.ask("POST", "/scores", json=body)) for body in bodies
        ]
        await asyncio.sleep(0.3)  # the first is being committed, the others wait
        process.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.1)
        await process.problem("GET", "/readyz", 503, "stopping")
        assert await process.get("/healthz") == {"status": "alive"}
        await process.problem("POST", "/scores", 503, "stopping", json={"batches": []})
        await process.problem("DELETE", "/users/u", 503, "stopping")
        await process.problem("POST", "/snapshot", 503, "stopping")
        assert [(await task).status for task in sending] == [200, 200, 200]
        _, stderr = await asyncio.wait_for(process.process.communicate(), 20)
        assert process.process.returncode == 0, stderr
    async with launched(tmp_path) as process:
        stats = await process.get("/stats")
        assert stats["restore"]["journal_rows_total"] == 0, "all of it was in the last snapshot"
        assert stats["live_events"] == 3


async def test_a_second_signal_does_not_make_it_lose_anything(tmp_path: Path) -> None:
    program = ("-m", "tests.state_service.state_slow", "0.5")
    async with launched(tmp_path, program=program) as process:
        body = {"batches": [batch("k", ["u"], [0.5])]}
        sending = asyncio.create_task(process.ask("POST", "/scores", json=body))
        await asyncio.sleep(0.2)
        for _ in range(2):
            process.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.05)
        assert (await sending).status == 200
        assert (await process.stop(signal.SIGINT))[0] == 0
    async with launched(tmp_path) as process:
        assert (await process.get("/stats"))["live_events"] == 1


async def test_a_user_who_was_being_forgotten_is_so_before_it_stops(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.record(batch("k", ["u", "v"], [0.5, 0.5]))
        async with server.service.state.changing:  # holds it back
            forgetting = asyncio.create_task(server.ask("DELETE", "/users/u"))
            await asyncio.sleep(0.05)
            server.service.stop()
        assert (await forgetting).body["forgotten_events"] == 1
    async with serving(tmp_path) as server:
        assert server.service.restored.events == 1
