"""POST /snapshot: now, once at a time, and never beside another."""

import asyncio
from pathlib import Path

from state_service.inspection import inspect
from tests.state_service.state_support import Server, batch, serving


async def _finished(server: Server) -> float:
    """Wait for a snapshot; return when it was taken."""
    for _ in range(2000):
        if (taken_at := server.service.snapshots.last_at) is not None:
            return taken_at
        await asyncio.sleep(0.005)
    raise TimeoutError


async def test_a_snapshot_is_taken_when_asked_for(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.record(batch("k", ["u"], [0.5]))
        answer = await server.ask("POST", "/snapshot")
        assert (answer.status, answer.body) == (202, {"status": "started"})
        taken_at = await _finished(server)
        assert (await server.get("/stats"))["snapshot"]["last_at"] == taken_at
        content = inspect(tmp_path / "state.db")
        assert (content.segments, content.journal_rows, content.problems) == (1, 0, [])


async def test_while_one_is_taken_another_is_refused_and_the_next_one_is_not(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server:
        async with server.service.state.changing:  # holds it back
            assert (await server.ask("POST", "/snapshot")).status == 202
            for _ in range(2):
                await server.problem("POST", "/snapshot", 409, "snapshot_running")
        await _finished(server)
        for _ in range(2000):
            if (answer := await server.ask("POST", "/snapshot")).status == 202:
                break
            await asyncio.sleep(0.005)
        assert answer.status == 202


async def test_one_that_is_asked_for_does_not_keep_the_service_from_stopping(
    tmp_path: Path,
) -> None:
    for _ in range(3):
        async with serving(tmp_path) as server:
            assert (await server.ask("POST", "/snapshot")).status == 202
