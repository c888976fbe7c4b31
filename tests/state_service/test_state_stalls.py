"""Nobody waits long for the event loop, whatever the service is doing."""

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest

from state_service import answering
from tests.state_service.state_support import ServiceProcess, batch, launched, serving

EVENTS_A_SECOND = 100_000
EVENTS_A_POST = 500
SECONDS = 3.0
CLIENTS = 16


def _bodies(count: int) -> list[bytes]:
    """Return so many requests of 500 events of Zipf users, made before anything is measured."""
    generator = np.random.default_rng(7)
    users = np.minimum(generator.zipf(1.2, count * EVENTS_A_POST), 10_000)
    names = np.char.add("user ", users.astype(str)).reshape(count, -1)
    now = time.time()
    return [
        msgspec.json.encode(
            {
                "batches": [
                    {
                        "key": f"batch {number}",
                        "user_id": names[number].tolist(),
                        "timestamp": (now + generator.random(EVENTS_A_POST)).tolist(),
                        "score": generator.random(EVENTS_A_POST).tolist(),
                    }
                ]
            }
        )
        for number in range(count)
    ]


async def _offer(process: ServiceProcess, bodies: list[bytes]) -> int:
    """Post at the rate, as far as the machine lets us; return how many were taken."""
    began, taken = time.perf_counter(), 0
    queue = iter(enumerate(bodies))

    async def client() -> None:
        nonlocal taken
        for number, body in queue:
            due = began + number * EVENTS_A_POST / EVENTS_A_SECOND
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if time.perf_counter() - began > 2 * SECONDS:
                return  # a slow machine: enough has been seen
            async with process.session.post(process.url + "/scores", data=body) as answer:
                taken += answer.status == 200

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return taken


async def _ask_all_the_time(process: ServiceProcess, stop: asyncio.Event) -> float:
    """Ask for a hot user's median again and again; return the longest wait for an answer."""
    longest = 0.0
    async with aiohttp.ClientSession() as session:
        while not stop.is_set():
            began = time.perf_counter()
            async with session.get(process.url + "/users/user%201/median") as answer:
                assert answer.status == 200
            longest = max(longest, time.perf_counter() - began)
            await asyncio.sleep(0.01)
    return longest


@pytest.mark.parametrize("path", ["/users/u/median", "/users/u/stats?q=0.1,0.9"])
async def test_a_long_question_is_answered_in_a_thread_and_just_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    asked: list[str] = []
    to_thread = asyncio.to_thread

    async def counted(function: Any, *arguments: Any) -> Any:
        asked.append(function.__name__)
        return await to_thread(function, *arguments)

    async with serving(tmp_path) as server:
        await server.record(batch("k", ["u"] * 9, [score / 7 for score in range(9)]))
        assert await server.service.snapshot()  # now nothing else is worked on
        question = {"user_ids": ["u", "nobody", "u"]}
        short = (await server.get(path), await server.post("/medians", question))
        monkeypatch.setattr(asyncio, "to_thread", counted)
        assert (await server.get(path), await server.post("/medians", question)) == short
        assert asked == []
        monkeypatch.setattr(answering, "LONG", 8)
        assert (await server.get(path), await server.post("/medians", question)) == short
        assert asked == ["answer", "answer"]


async def test_no_request_waits_long_while_much_is_written_and_snapshots_are_taken(
    tmp_path: Path,
) -> None:
    bodies = _bodies(round(SECONDS * EVENTS_A_SECOND / EVENTS_A_POST))
    async with launched(tmp_path, "--snapshot-interval-seconds", "0.5") as process:
        stop = asyncio.Event()
        asking = asyncio.create_task(_ask_all_the_time(process, stop))
        taken = await _offer(process, bodies)
        stats = await process.get("/stats")
        stop.set()
        assert await asking < 5.0
        assert taken > 0
        assert stats["accepted"] == taken * EVENTS_A_POST
        assert stats["snapshot"]["last_at"] is not None
        # A stall would be seen whole: the timer that measures it fires every 20 ms.
        assert stats["loop_lag_seconds"] < 0.25
