"""`check`, `dump` and `backup`: on a live file, on a copy, and on what is broken."""

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from state_service.inspection import back_up, inspect
from tests.state_service.state_support import (
    COMMAND,
    REPOSITORY,
    Server,
    batch,
    launched,
    serving,
    spawn,
)


async def _run(*arguments: str | Path) -> tuple[int, str, str]:
    """Run the command; return its exit status, stdout and stderr."""
    process = await spawn(*map(str, arguments))
    stdout, stderr = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, stdout.decode(), stderr.decode()


async def _fill(server: Server) -> Counter[tuple[str, float, float]]:
    """Record events, some of them in a snapshot and some only in the journal."""
    events: Counter[tuple[str, float, float]] = Counter()
    now = server.service.clock()
    for number in range(6):
        users = [f"ü {index % 5}" for index in range(40)]
        scores = [number + index / 7 for index in range(40)]
        moments = [now - index for index in range(40)]
        await server.record(batch(f"k{number}", users, scores, moments))
        events.update(zip(users, moments, scores, strict=True))
        if number in (1, 3):
            assert await server.service.snapshot()
    return events


def _files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def _events(text: str) -> Counter[tuple[str, float, float]]:
    rows = map(json.loads, text.splitlines())
    return Counter((row["user_id"], row["timestamp"], row["score"]) for row in rows)


async def test_they_work_while_the_service_runs_and_on_copies(tmp_path: Path) -> None:
    path, copy = tmp_path / "state.db", tmp_path / "copy.db"
    async with serving(tmp_path) as server:
        events = await _fill(server)
        status, text, stderr = await _run("check", path)
        assert (status, stderr) == (0, "")
        assert "240 events in 2 segments and 2 journal rows, 6 batch keys" in text
        assert "0 problems" in text
        status, text, stderr = await _run("dump", path)
        assert (status, stderr, _events(text)) == (0, "", events)
        status, text, _ = await _run("backup", path, copy)
        assert (status, text) == (0, f"{copy}: {copy.stat().st_size} bytes\n")
        await server.record(batch("after", ["x"], [1.0]))
    assert (await _run("check", copy))[0] == 0
    assert _events((await _run("dump", copy))[1]) == events
    beside = sorted(path.name for path in _files(tmp_path))
    assert beside == ["copy.db", "state.db", "state.db.lock"], "reading leaves nothing behind"
    async with serving(tmp_path, database=str(copy)) as server:
        assert (await server.get("/stats"))["live_events"] == 240
    copy.chmod(0o400)
    assert (await _run("check", copy))[0] == 0


async def test_a_backup_overwrites_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path):
        pass
    target = tmp_path / "precious"
    target.write_text("precious")
    for other in (target, tmp_path / "state.db", tmp_path / "nowhere" / "copy.db"):
        status, stdout, stderr = await _run("backup", tmp_path / "state.db", other)
        assert (status, stdout) == (1, "")
        assert stderr.startswith(f"error: {other}: ")
        assert stderr.count("\n") == 1
    assert target.read_text() == "precious"


BROKEN = {
    "UPDATE block SET payload = substr(payload, 2) WHERE number = 1": "segment 1, block 1",
    "UPDATE block SET crc32 = 1 WHERE number = 2": "key set 2, block 2",
    "DELETE FROM block WHERE number = 3": "segment 2, block 3: it is gone",
    "UPDATE segment SET first_block = 1": "it is in segment 1 as well",
    "UPDATE segment SET blocks = 9 WHERE number = 2": "it is gone",
    "UPDATE key_set SET newest_seen_at = 5": "a key is newer than the catalogue says",
    "UPDATE journal SET payload = 'text'": "journal row 5: its checksum is wrong",
    "DELETE FROM journal WHERE sequence = 5": "journal row 5: it is gone",
    "DELETE FROM covered": "the table covered has 0 rows",
    "DELETE FROM hash_key": "the table hash_key holds not one key of 32 bytes",
}


async def test_every_kind_of_damage_is_named(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await _fill(server)
        for number, (statement, sentence) in enumerate(BROKEN.items()):
            copy = tmp_path / f"{number}.db"
            back_up(tmp_path / "state.db", copy)
            with closing(sqlite3.connect(copy)) as database:
                assert database.execute(statement).rowcount
                database.commit()
            assert sentence in "\n".join(inspect(copy).problems), statement
        status, text, stderr = await _run("check", copy)
        assert (status, stderr) == (1, "")
        assert text.startswith(sentence)


async def test_a_dump_leaves_out_what_is_damaged_and_says_so(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await _fill(server)
        await _run("backup", tmp_path / "state.db", tmp_path / "copy.db")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as database:
        database.execute("UPDATE block SET crc32 = 1 WHERE number = 1")
        database.execute("UPDATE journal SET crc32 = 1 WHERE sequence = 6")
        database.execute("UPDATE segment SET blocks = 3 WHERE number = 2")
        database.commit()
    status, text, stderr = await _run("dump", tmp_path / "copy.db")
    assert status == 1
    assert len(text.splitlines()) == 240 - 80 - 40
    assert "left out: block 1: " in stderr
    assert "left out: journal row 6: " in stderr
    assert "left out: segment 2: 1 of its blocks are gone" in stderr


@pytest.mark.parametrize("command", ["check", "dump"])
async def test_what_is_not_our_database_is_refused_in_one_sentence(
    tmp_path: Path, command: str
) -> None:
    files = {"text": "dear diary " * 500, "empty": "", "folder": None}
    for name, text in files.items():
        if text is None:
            (tmp_path / name).mkdir()
        else:
            (tmp_path / name).write_text(text)
    for version, table in ((0, "theirs"), (1, "segment"), (2, "block"), (4, "block"), (5, "block")):
        with closing(sqlite3.connect(tmp_path / f"version {version}")) as database:
            database.executescript(f"CREATE TABLE {table} (x); PRAGMA user_version = {version}")
    for path in (*_files(tmp_path), tmp_path / "missing"):
        status, stdout, stderr = await _run(command, path)
        assert (status, stdout) == (1, ""), path
        assert stderr.startswith(f"error: {path}: ")
        assert stderr.count("\n") == 1


def test_a_reader_that_stops_early_is_no_error(tmp_path: Path) -> None:
    async def fill() -> None:
        async with serving(tmp_path) as server:
            for key in "abcd":
                await server.record(batch(key, ["u"] * 15_000, [0.5] * 15_000))

    asyncio.run(fill())
    command = [sys.executable, *COMMAND, "dump", str(tmp_path / "state.db")]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b'{"user_id":"u"')
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 0


async def test_help_names_the_commands_and_each_explains_itself(tmp_path: Path) -> None:
    _, text, _ = await _run("--help")
    for command in ("check", "dump", "backup"):
        assert f"\n  {command} " in text
        status, own, _ = await _run(command, "--help")
        assert status == 0
        assert "FILE" in own
        assert (await _run(command))[0] == 2


async def test_a_database_that_a_killed_service_leaves_passes_the_check(tmp_path: Path) -> None:
    async with launched(tmp_path, "--snapshot-interval-seconds", "0.05") as process:
        for number in range(100):
            await process.record(batch(f"k{number}", ["u"], [0.5]))
        process.process.kill()
        await process.process.wait()
        status, text, _ = await _run("check", tmp_path / "state.db")
    assert status == 0
    assert ": 100 events in " in text
