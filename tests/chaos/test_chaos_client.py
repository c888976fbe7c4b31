"""The load asks again, the same thing under the same key, until it is answered 200."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import numpy as np
import pytest
from aiohttp import web

from chaos.client import Load, Tally
from generator.client import client_session
from tests.chaos.chaos_support import some_book, sums

EVENTS = 4
Respond = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]


def stored(body: bytes, **other: object) -> web.Response:
    """Answer as the scorer does, but for what is given."""
    rows = [event["features"] for event in json.loads(body)["events"]]
    answer = {
        "processed": len(rows),
        "recorded": "stored",
        "late": 0,
        "future": 0,
        "scores": sums(np.array(rows, np.float32)).tolist(),
    }
    return web.json_response(answer | other)


@contextlib.asynccontextmanager
async def scorer(respond: Respond) -> AsyncIterator[str]:
    """Serve as a scorer that responds so."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await respond(request, await request.read())

    app = web.Application()
    app.router.add_post("/predictions/scorer", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/predictions/scorer"
    finally:
        await runner.cleanup()


async def sent(respond: Respond, *, acknowledged: int, senders: int = 1) -> Tally:
    """Let the load run until so many requests are acknowledged; return what it has seen."""
    async with scorer(respond) as url, client_session(0.5, senders, None) as session:
        load = Load(
            session,
            url,
            some_book(events=EVENTS),
            requests_per_second=500,
            senders=senders,
            catch_up_seconds=0,
            run="run",
        )
        running = asyncio.create_task(load.run())
        async with asyncio.timeout(20):
            while load.tally.acknowledged < acknowledged:  # noqa: ASYNC110 - a counter
                await asyncio.sleep(0.01)
        load.stop()
        await running
        return load.tally


async def test_what_fails_is_sent_again_as_it_was_under_its_key() -> None:
    seen: list[tuple[str, bytes]] = []

    async def respond(request: web.Request, body: bytes) -> web.StreamResponse:
        seen.append((request.headers["Idempotency-Key"], body))
        match len(seen):
            case 1:
                return web.Response(status=503)
            case 2:
                return web.Response(status=507)
            case 3:
                assert request.transport is not None
                request.transport.abort()
            case 4:
                await asyncio.sleep(1)  # beyond the client's patience
        return stored(body)

    tally = await sent(respond, acknowledged=1)
    assert len(set(seen[:5])) == 1, "another body, or another key"
    assert seen[0][0] == "run-0"
    assert tally.retries == 4
    assert (tally.attempts_failed["503"], tally.attempts_failed["507"]) == (1, 1)
    assert tally.wrong_answers == 0
    assert tally.requests == tally.acknowledged == tally.recorded["stored"]


async def test_each_request_has_a_key_of_its_own() -> None:
    keys: list[str] = []

    async def respond(request: web.Request, body: bytes) -> web.StreamResponse:
        keys.append(request.headers["Idempotency-Key"])
        return stored(body)

    await sent(respond, acknowledged=30, senders=4)
    assert len(keys) == len(set(keys)) >= 30


@pytest.mark.parametrize(
    "wrong",
    [
        {"scores": [0.0] * EVENTS},
        {"processed": EVENTS - 1},
        {"late": 1},
        {"future": 1},
        {"recorded": "dry_run"},
    ],
)
async def test_an_answer_that_is_not_right_is_told(wrong: dict[str, object]) -> None:
    async def respond(_: web.Request, body: bytes) -> web.StreamResponse:
        return stored(body, **wrong)

    tally = await sent(respond, acknowledged=1)
    assert tally.wrong_answers == tally.acknowledged
    assert tally.examples


async def test_a_refusal_that_a_repeat_would_not_change_is_told() -> None:
    refused = False

    async def respond(_: web.Request, body: bytes) -> web.StreamResponse:
        nonlocal refused
        if refused:
            return stored(body)
        refused = True
        return web.Response(status=400, text="no")

    tally = await sent(respond, acknowledged=1)
    assert tally.wrong_answers == 1
    assert "400" in tally.examples[0]


def test_an_outage_is_the_longest_time_between_two_answers() -> None:
    tally = Tally()
    for moment in (10.0, 10.5, 14.0, 14.2):
        tally.acknowledge("stored", moment)
    assert tally.longest_outage_seconds == 3.5
