"""A user who will be forgotten, and where to look for what is left of them."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.state_service.state_support import Server, ServiceProcess, batch

WHO = "the user to be forgotten / ünï"
PATH = "/users/the%20user%20to%20be%20forgotten%20%2F%20%C3%BCn%C3%AF"
SCORE = -1.2345678901234567e-89  # whose bytes nothing else has
MARKS = (WHO.encode(), struct.pack("<d", SCORE))


def files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def traces(folder: Path) -> list[tuple[str, int]]:
    """Return where in which file the user's id or score is."""
    found = []
    for path in files(folder):
        content = path.read_bytes()
        found += [(path.name, content.find(mark)) for mark in MARKS if mark in content]
    return found


def others(count: int) -> list[str]:
    return [f"other {number}" for number in range(count)]


async def record(server: Server | ServiceProcess, key: str, count: int = 40) -> None:
    """Record events of the user among those of others."""
    names = [WHO if index % 4 == 0 else f"other {index % 7}" for index in range(count)]
    scores = [SCORE if name == WHO else index / 7 for index, name in enumerate(names)]
    answer = await server.record(batch(key, names, scores))
    assert answer["accepted"] == count


async def count_of(server: Server | ServiceProcess, path: str = PATH) -> int:
    count: int = (await server.get(f"{path}/median"))["count"]
    return count


async def forget(server: Server | ServiceProcess, path: str = PATH) -> Any:
    answer = await server.ask("DELETE", path)
    assert answer.status == 200, answer.text
    return answer.body


async def in_segments(server: Server) -> None:
    for key in "abcd":
        await record(server, key)
        assert await server.service.snapshot()
    await record(server, "not in a snapshot yet")
