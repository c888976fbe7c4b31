"""The spool keeps what it has taken, for all workers of a host, within its bounds."""

import multiprocessing
import os
import signal
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from handler.spool import Spool, SpoolError

MIB = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "spool.db"


@pytest.fixture
def spool(path: Path) -> Iterator[Spool]:
    with closing(Spool(path, 8 * MIB, 3600.0)) as opened:
        yield opened


def drained(spool: Spool) -> list[bytes]:
    bodies = []
    while waiting := spool.next():
        assert waiting.intact
        bodies.append(waiting.body)
        spool.done(waiting)
    return bodies


def bytes_on_disk(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.iterdir())


def test_what_is_put_comes_back_oldest_first_and_once(spool: Spool) -> None:
    for number in range(3):
        spool.put(b"body %d" % number, events=10)
    status = spool.status()
    assert (status.batches, status.spooled_events, status.replayed_events) == (3, 30, 0)
    assert drained(spool) == [b"body 0", b"body 1", b"body 2"]
    assert spool.next() is None
    assert (spool.status().batches, spool.status().replayed_events) == (0, 30)


def test_another_worker_sees_what_one_has_put(spool: Spool, path: Path) -> None:
    with closing(Spool(path, 8 * MIB, 3600.0)) as other:
        spool.put(b"from one", 1)
        other.put(b"from the other", 1)
        assert drained(other) == [b"from one", b"from the other"]
    assert spool.next() is None


def _put_for_ever(path: Path) -> None:
    with closing(Spool(path, 64 * MIB, 3600.0)) as spool:
        for number in range(1_000_000):
            spool.put(b"%d" % number, 1)
            with path.with_name("acknowledged").open("a") as acknowledged:
                acknowledged.write(f"{number}\n")


def test_what_was_put_before_a_kill_is_there_after_it(path: Path) -> None:
    path.parent.mkdir()
    process = multiprocessing.get_context("spawn").Process(target=_put_for_ever, args=(path,))
    process.start()
    acknowledged = path.with_name("acknowledged")
    while not acknowledged.exists() or acknowledged.stat().st_size < 100:
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    put = len(acknowledged.read_text().splitlines())
    with closing(Spool(path, 64 * MIB, 3600.0)) as spool:
        found = drained(spool)
    assert found == [b"%d" % number for number in range(len(found))]
    assert put <= len(found) <= put + 1


def _drain_until_killed(path: Path) -> None:
    with closing(Spool(path, 8 * MIB, 3600.0)) as spool, spool.draining() as alone:
        path.with_name("alone").write_text(str(alone))
        time.sleep(600)


def test_one_drains_at_a_time_and_a_killed_one_leaves_no_lock(spool: Spool, path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_drain_until_killed, args=(path,))
    process.start()
    while not path.with_name("alone").exists():
        time.sleep(0.01)
    with spool.draining() as alone:
        assert not alone
    process.kill()
    process.join()
    with spool.draining() as alone:
        assert alone


def test_a_full_spool_says_so_keeps_what_it_has_and_takes_more_once_drained(path: Path) -> None:
    body = os.urandom(100_000)
    put = 0
    with closing(Spool(path, MIB, 3600.0)) as spool:
        refusal = ""
        while not refusal and put < 20:
            try:
                spool.put(body, 1)
                put += 1
            except SpoolError as error:
                refusal = str(error)
        assert "full" in refusal
        assert 5 < put <= 10
        assert path.stat().st_size <= MIB
        assert drained(spool) == [body] * put
        spool.put(body, 1)


def test_a_drained_spool_gives_its_space_back(spool: Spool, path: Path) -> None:
    for _ in range(20):
        spool.put(os.urandom(100_000), 1)
    assert spool.status().bytes > 2_000_000
    drained(spool)
    spool.shrink()
    assert spool.status().bytes < 100_000
    assert path.exists()


def test_nothing_of_what_was_drained_stays_in_any_file(spool: Spool, path: Path) -> None:
    spool.put(b"some-very-private-user" * 1000, 1)
    assert b"some-very-private-user" in bytes_on_disk(path)
    drained(spool)
    spool.shrink()
    assert b"some-very-private-user" not in bytes_on_disk(path)


def test_what_is_too_old_is_dropped_and_counted(path: Path) -> None:
    with closing(Spool(path, 8 * MIB, 0.2)) as spool:
        spool.put(b"old", 7)
        assert spool.expire() == 0
        time.sleep(0.3)
        spool.put(b"young", 1)
        assert spool.expire() == 7
        assert spool.status().expired_events == 7
        assert drained(spool) == [b"young"]


def test_a_refused_body_is_out_of_the_way_and_seen(spool: Spool) -> None:
    spool.put(b"refused", 1)
    spool.put(b"next", 1)
    first = spool.next()
    assert first is not None
    spool.refuse(first, "400")
    assert drained(spool) == [b"next"]
    assert (spool.status().batches, spool.status().refused) == (1, 1)


def test_a_body_that_the_disk_has_changed_is_told(spool: Spool, path: Path) -> None:
    spool.put(b"as it was", 1)
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE batch SET body = ?", (b"as it is!",))
        database.commit()
    changed = spool.next()
    assert changed is not None
    assert not changed.intact


def test_a_damaged_file_is_put_aside_and_a_new_one_made(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database" * 1000)
    with closing(Spool(path, 8 * MIB, 3600.0)) as spool:
        (aside,) = path.parent.glob("spool.db.damaged-*")
        assert aside.read_bytes().startswith(b"this is no database")
        spool.put(b"body", 1)
        assert drained(spool) == [b"body"]


@pytest.mark.parametrize("put_aside", [True, False])
def test_a_file_that_is_taken_away_gets_nothing_more(
    spool: Spool, path: Path, *, put_aside: bool
) -> None:
    spool.put(b"before", 1)
    if put_aside:  # as another worker does that finds it damaged
        path.rename(path.with_name("aside"))
    else:
        path.unlink()
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).unlink()
    spool.put(b"after", 1)
    with closing(Spool(path, 8 * MIB, 3600.0)) as other:
        assert drained(other) == [b"after"]


def test_a_spool_that_cannot_be_opened_yet_is_opened_when_it_can(path: Path) -> None:
    path.mkdir(parents=True)  # something is in its place
    with closing(Spool(path, 8 * MIB, 3600.0)) as spool:
        with pytest.raises(SpoolError):
            spool.put(b"lost", 1)
        path.rmdir()
        spool.put(b"body", 1)
        assert drained(spool) == [b"body"]


def test_a_spool_of_another_version_is_refused_and_left_as_it_is(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(SpoolError, match="another version"):
        Spool(path, 8 * MIB, 3600.0)
    assert path.exists()


def test_a_place_where_no_file_can_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match=r"setting: spool"):
        Spool(tmp_path / "file" / "spool.db", 8 * MIB, 3600.0)


def test_only_its_owner_may_read_it(spool: Spool, path: Path) -> None:
    spool.put(b"body", 1)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(modes, 0o600)
    assert "spool.db-wal" in modes
