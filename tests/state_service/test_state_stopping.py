"""Stopping at an awkward moment loses nothing and breaks nothing."""

import asyncio
from pathlib import Path

import pytest

from state_service.app_keys import BACKGROUND
from state_service.service import StateService
from state_service.settings import Settings
from tests.state_service.state_support import batch, serving


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
