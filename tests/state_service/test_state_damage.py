"""A damaged or mistaken file is refused in a sentence, or its damage told: never guessed at."""

import os
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import structlog

from state_service.errors import StorageError
from state_service.inspection import back_up, inspect, stored_events
from state_service.service import StateService
from state_service.settings import Settings
from tests.state_service.state_support import batch, launched, serving, spawn

USERS = ["ann", "bob", "cid"]


async def _filled(folder: Path) -> Path:
    """Return a file with two snapshots and two journal rows, as a kill leaves it, in one piece."""
    copy = folder / "copy.db"
    async with serving(folder, database=str(folder / "original.db")) as server:
        for number in range(6):
            await server.record(batch(f"k{number}", USERS, [float(number)] * 3))
            if number in (1, 3):
                assert await server.service.snapshot()
        back_up(folder / "original.db", copy)
    return copy


def _changed(path: Path, statement: str) -> Path:
    with closing(sqlite3.connect(path)) as database:
        database.execute(statement)
        database.commit()
    return path


MISTAKEN = {
    "UPDATE segment SET blocks = 1 << 40 WHERE number = 1": "it names 1099511627776 blocks",
    "UPDATE segment SET blocks = 0 WHERE number = 1": "it names 0 blocks",
    "UPDATE segment SET first_block = 'three' WHERE number = 2": "'three' and 1, not two numbers",
    "UPDATE segment SET first_block = 1": "a block is in two segments",
    "UPDATE key_set SET first_block = -2 WHERE first_block = 2": "it names 1 blocks from -2 on",
    "UPDATE segment SET first_block = (1 << 62) + 1 WHERE number = 1": "from 4611686018427387905",
    "UPDATE segment SET first_block = 9223372036854775807 WHERE number = 2": "from 922337203685477",
    "UPDATE key_set SET newest_seen_at = 'noon'": "'noon', not a number",
    "DELETE FROM covered": "the table covered has 0 rows",
    "INSERT INTO covered VALUES (1)": "the table covered has 2 rows",
    "UPDATE covered SET sequence = 'four'": "'four', not a number",
    "UPDATE covered SET sequence = 9223372036854775807": "9223372036854775807, too great",
}


@pytest.mark.parametrize("statement", MISTAKEN)
async def test_a_catalogue_that_cannot_be_so_is_refused_and_said_in_words(
    tmp_path: Path, statement: str
) -> None:
    path = _changed(await _filled(tmp_path), statement)
    with pytest.raises(StorageError, match=r"move it away.*setting: database") as refused:
        await StateService.open(Settings(database=str(path)))
    assert MISTAKEN[statement] in str(refused.value)
    assert inspect(path).problems
    list(stored_events(path, []))


async def test_a_segment_with_blocks_that_are_not_its_own_ends_the_process_with_one_sentence(
    tmp_path: Path,
) -> None:
    path = await _filled(tmp_path)
    _changed(path, "DELETE FROM key_set WHERE first_block = 2")
    _changed(path, "UPDATE segment SET blocks = 2 WHERE number = 1")
    _changed(path, "DELETE FROM block WHERE number = 2")
    _changed(path, "INSERT INTO block SELECT 2, crc32, shield, payload FROM block WHERE number = 1")
    process = await spawn("--port", "0", "--database", str(path), "--log-level", "error")
    _, stderr = await process.communicate()
    assert process.returncode == 1
    assert "setting: database" in stderr.decode()
    assert stderr.count(b"\n") == 1


async def test_a_journal_row_that_is_gone_is_told(tmp_path: Path) -> None:
    path = _changed(await _filled(tmp_path), "DELETE FROM journal WHERE sequence = 5")
    async with serving(tmp_path, database=str(path)) as server:
        restore = (await server.get("/stats"))["restore"]
        assert restore["damaged_journal_rows"] == 1
        assert restore["journal_rows_done"] == restore["journal_rows_total"] == 1
        assert (await server.get("/users/ann/median"))["count"] == 5
        await server.record(batch("next", ["ann"], [9.0]))
    async with serving(tmp_path, database=str(path)) as server:
        assert (await server.get("/stats"))["restore"]["damaged_journal_rows"] == 0
        assert (await server.get("/users/ann/median"))["count"] == 6


async def test_a_journal_row_that_is_gone_is_not_said_to_be_put_aside(tmp_path: Path) -> None:
    path = _changed(await _filled(tmp_path), "DELETE FROM journal WHERE sequence = 5")
    _changed(path, "DELETE FROM block WHERE number = 1")
    with structlog.testing.capture_logs() as logs:
        async with serving(tmp_path, database=str(path)):
            pass
    told = [(line["event"], line["number"]) for line in logs if line["log_level"] == "error"]
    assert told == [
        ("a block is gone, the rest is served", 1),
        ("a journal row is gone, the rest is served", 5),
    ]


async def test_a_damaged_file_is_refused_before_anything_is_written_to_it(tmp_path: Path) -> None:
    path = await _filled(tmp_path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = DELETE")
        ((root,),) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'block'")
    broken = bytearray(path.read_bytes())
    broken[4096 * (root - 1) + 3] ^= 1  # how many rows the page has
    path.write_bytes(broken)
    with pytest.raises(StorageError, match="it is damaged"):
        await StateService.open(Settings(database=str(path)))
    assert path.read_bytes() == broken


async def test_tables_that_are_not_of_this_version_are_refused_in_a_sentence(
    tmp_path: Path,
) -> None:
    """As a flipped bit in their names or columns makes them."""
    path = await _filled(tmp_path)
    whole = path.read_bytes()
    for text in (b"journal (", b"crc32 INTEGER", b"newest_seen_at REAL"):
        place = whole.index(text)
        flipped = bytearray(whole)
        flipped[place + 1] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(StorageError, match=r"not those of version 4|malformed"):
            await StateService.open(Settings(database=str(path)))
        with pytest.raises(StorageError, match=r"not those of version 4|malformed"):
            inspect(path)
        assert path.read_bytes() == flipped


async def _answers(path: Path) -> tuple[list[tuple[int, float]], int]:
    """Return (count, median) of each user, and how many damaged records a start found."""
    async with serving(path.parent, database=str(path)) as server:
        items = (await server.post("/medians", {"user_ids": USERS}))["items"]
        restore = (await server.get("/stats"))["restore"]
        damaged = restore["damaged_blocks"] + restore["damaged_journal_rows"]
        await server.record(batch("new", USERS, [1.0] * 3))
        return [(item["count"], item["median"]) for item in items], damaged


async def test_a_flipped_bit_in_what_is_recorded_is_refused_told_or_harmless(
    tmp_path: Path,
) -> None:
    """In blocks and journal rows, the numbers and pages around them included."""
    path = await _filled(tmp_path)
    with closing(sqlite3.connect(path)) as database:
        query = "SELECT rootpage FROM sqlite_master WHERE name IN ('block', 'journal')"
        roots = [root for (root,) in database.execute(query)]
    whole = path.read_bytes()
    expected, _ = await _answers(path)
    generator = random.Random(8)
    places = [place for root in roots for place in range(4096 * (root - 1), 4096 * root)]
    places = [place for place in places if whole[place]]
    for _ in range(40):
        place, bit = generator.choice(places), generator.randrange(8)
        flipped = bytearray(whole)
        flipped[place] ^= 1 << bit
        for file in path.parent.glob("copy.db*"):
            file.unlink()
        path.write_bytes(flipped)
        try:
            found, damaged = await _answers(path)
        except StorageError:
            continue
        assert damaged or found == expected, (place, bit)


def _replace(path: Path) -> None:
    other = path.with_name("other.db")
    other.write_bytes(path.read_bytes())
    other.replace(path)


GONE: dict[str, tuple[Callable[[Path], None], str]] = {
    "the log deleted": (lambda path: path.with_name("state.db-wal").unlink(), "been deleted"),
    "the database replaced": (_replace, "been replaced"),
}


@pytest.mark.parametrize("what", GONE)
async def test_nothing_is_acknowledged_into_a_file_that_nobody_finds_any_more(
    tmp_path: Path, what: str
) -> None:
    act, sentence = GONE[what]
    async with launched(tmp_path, "--snapshot-interval-seconds", "3600") as process:
        await process.record(batch("first", ["ann"], [1.0]))
        act(tmp_path / "state.db")
        body = {"batches": [batch("second", ["ann"], [2.0])]}
        answer = await process.problem("POST", "/scores", 503, "not_durable", json=body)
        assert sentence in answer.body["detail"]
        assert (await process.get("/users/ann/median"))["count"] == 1


async def test_a_second_service_is_refused_under_another_name_too(tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    async with launched(tmp_path) as first:
        link.symlink_to(tmp_path / "state.db")
        await first.record(batch("k", ["ann"], [1.0]))
        process = await spawn("--port", "0", "--database", str(link))
        _, stderr = await process.communicate()
        assert process.returncode == 1
        assert "in use by another state service" in stderr.decode()
        assert [events for events, _, _ in stored_events(link, [])] == [["ann"]]


async def test_no_name_of_a_file_means_memory(tmp_path: Path) -> None:
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        async with serving(tmp_path, database=":memory:") as server:
            await server.record(batch("k", ["ann"], [1.0]))
        assert inspect(tmp_path / ":memory:").events == 1
    finally:
        os.chdir(before)
