"""What the state service says, and what its file holds, once everything is quiet."""

import asyncio
import contextlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np

from chaos.book import Book
from chaos.oracle import Held, UserAnswer
from stack.files import ROOT

_POLL_SECONDS = 0.2
_QUESTIONS_AT_ONCE = 8
_PIECE_BYTES = 1 << 20


class EvidenceError(Exception):
    """The state service or its file could not be asked."""


class _Event(msgspec.Struct):
    user_id: str
    timestamp: float
    score: float


async def wait_until_quiet(session: aiohttp.ClientSession, state_url: str) -> None:
    """Wait until the state service is ready and no spool waits to be replayed.

    Bound it from outside: it waits for ever.
    """
    while True:
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, EvidenceError):
            async with session.get(f"{state_url}/readyz") as response:
                ready = response.status == 200
            stats = await _get(session, f"{state_url}/stats")
            if ready and not stats.get("spool", {}).get("batches"):
                return
        await asyncio.sleep(_POLL_SECONDS)


async def ask_users(
    session: aiohttp.ClientSession, state_url: str, book: Book, at: float
) -> dict[int, UserAnswer]:
    """Ask for every user's window as it was `at`, epoch seconds. Raises `EvidenceError`."""
    answers: dict[int, UserAnswer] = {}
    slots = asyncio.Semaphore(_QUESTIONS_AT_ONCE)

    async def ask(user: int) -> None:
        async with slots:
            url = f"{state_url}/users/{book.user_id(user)}/stats?at={at!r}"
            found = await _get(session, url)
            answers[user] = UserAnswer(found["count"], found["min"], found["max"], found["median"])

    try:
        async with asyncio.TaskGroup() as group:
            for user in range(book.users):
                group.create_task(ask(user))
    except ExceptionGroup as failures:
        raise EvidenceError(f"users cannot be asked: {failures.exceptions[0]!r}") from failures
    return answers


async def _get(session: aiohttp.ClientSession, url: str) -> Any:  # noqa: ANN401 - JSON
    async with session.get(url) as response:
        if response.status != 200:
            raise EvidenceError(f"GET {url} answers {response.status}")
        return await response.json()


async def dump(database: Path, book: Book, oldest: float) -> Held:
    """Read every event in the file from `oldest` on, by the product's own `dump`.

    Raises `EvidenceError` when that finds anything damaged.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "state_service", "dump", str(database),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    users, timestamps, scores = [], [], []
    decode = msgspec.json.Decoder(_Event).decode_lines
    rest = b""
    while piece := await process.stdout.read(_PIECE_BYTES):
        lines, newline, rest = (rest + piece).rpartition(b"\n")
        columns = _columns(decode(lines + newline), book)
        users.append(columns.users)
        timestamps.append(columns.timestamps)
        scores.append(columns.scores)
    if await process.wait() or rest:
        raise EvidenceError(f"{database} is damaged: its dump fails")
    held = Held(
        np.concatenate([*users, np.empty(0, np.int32)]),
        np.concatenate([*timestamps, np.empty(0)]),
        np.concatenate([*scores, np.empty(0)]),
    )
    live = held.timestamps >= oldest
    return Held(held.users[live], held.timestamps[live], held.scores[live])


def _columns(events: Iterable[_Event], book: Book) -> Held:
    rows = list(events)
    return Held(
        np.array([book.user_of(event.user_id) for event in rows], np.int32),
        np.array([event.timestamp for event in rows], np.float64),
        np.array([event.score for event in rows], np.float64),
    )
