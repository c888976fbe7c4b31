"""`python -m state_service` as a process: how it starts, ends, dies and comes back."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.running_stack import ROOT
from tests.state_service.state_support import ServiceProcess, batch, launched, spawn

USERS = [f"user {number}" for number in range(7)]


async def _record_some(process: ServiceProcess, key: str) -> dict[str, object]:
    names = [USERS[index % 7] for index in range(1000)]
    scores = [(index * 7919 % 1000) / 997 for index in range(1000)]
    sent = batch(key, names, scores)
    assert (await process.record(sent))["accepted"] == 1000
    return sent


async def _medians(process: ServiceProcess) -> Any:
    return (await process.post("/medians", {"user_ids": USERS}))["items"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_clean_stop_loses_nothing(tmp_path: Path, number: signal.Signals) -> None:
    async with launched(tmp_path) as process:
        sent = await _record_some(process, "one")
        before = await _medians(process)
        status, stderr = await process.stop(number)
        assert status == 0
        assert "Traceback" not in stderr
    async with launched(tmp_path) as process:
        assert await _medians(process) == before
        answer = await process.record(sent)
        assert (answer["accepted"], answer["duplicates"]) == (0, 1000)
        assert await _medians(process) == before


async def test_a_kill_loses_nothing_that_was_in_a_snapshot(tmp_path: Path) -> None:
    interval = ("--snapshot-interval-seconds", "0.05")
    async with launched(tmp_path, *interval) as process:
        sent = await _record_some(process, "one")
        accepted_at = time.time()
        before = await _medians(process)
        for _ in range(1000):
            taken_at = (await process.get("/stats"))["snapshot"]["last_at"]
            if taken_at is not None and taken_at > accepted_at:
                break
            await asyncio.sleep(0.01)
        assert taken_at > accepted_at
        status, _ = await process.stop(signal.SIGKILL)
        assert status == -signal.SIGKILL
    async with launched(tmp_path, *interval) as process:
        assert await _medians(process) == before
        assert (await process.record(sent))["duplicates"] == 1000


async def test_a_kill_in_the_middle_of_anything_leaves_a_database_that_is_whole(
    tmp_path: Path,
) -> None:
    """Whatever was lost, batches and keys were lost together: sending again counts once."""
    sent = [batch(f"k{number}", USERS, [number / 50] * 7) for number in range(50)]
    async with launched(tmp_path, "--snapshot-interval-seconds", "0.01") as process:
        for item in sent:
            await process.record(item)
        await process.stop(signal.SIGKILL)
    async with launched(tmp_path) as process:
        restore = (await process.get("/stats"))["restore"]
        assert restore["damaged_blocks"] == restore["damaged_journal_rows"] == 0
        answer = await process.record(*sent)
        assert answer["accepted"] + answer["duplicates"] == 350
        assert answer["duplicates"] == restore["events"]
        assert {item["count"] for item in await _medians(process)} == {50}


async def test_a_port_in_use_ends_it_with_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = await spawn(
            *("--port", port, "--database", str(tmp_path / "state.db"), "--log-level", "error")
        )
        stdout, stderr = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 1
    assert stdout == b""
    assert stderr.decode().startswith("error: cannot listen: ")
    assert port in stderr.decode()
    assert "in use" in stderr.decode()
    assert stderr.count(b"\n") == 1


async def test_a_second_service_on_the_same_file_ends_with_one_sentence(tmp_path: Path) -> None:
    async with launched(tmp_path) as first:
        process = await spawn("--port", "0", "--database", str(tmp_path / "state.db"))
        _, stderr = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 1
        assert "in use by another state service" in stderr.decode()
        assert stderr.count(b"\n") == 1
        await _record_some(first, "one")
        await first.stop(signal.SIGKILL)
    async with launched(tmp_path):
        pass  # a killed service leaves no lock behind


async def test_a_second_service_is_refused_also_when_the_lock_file_is_gone(tmp_path: Path) -> None:
    async with launched(tmp_path) as first:
        (tmp_path / "state.db.lock").unlink()
        process = await spawn("--port", "0", "--database", str(tmp_path / "state.db"))
        _, stderr = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 1
        assert "in use by another state service" in stderr.decode()
        assert stderr.count(b"\n") == 1
        await _record_some(first, "one")
        assert (await first.stop(signal.SIGTERM))[0] == 0
    async with launched(tmp_path) as again:
        assert (await again.get("/stats"))["live_events"] == 1000


async def test_an_address_of_another_machine_ends_it_with_one_sentence(tmp_path: Path) -> None:
    process = await spawn(
        *("--host", "203.0.113.1", "--port", "0", "--log-level", "error"),
        *("--allow-anonymous", "true", "--database", str(tmp_path / "state.db")),
    )
    _, stderr = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 1
    assert stderr.decode().startswith("error: cannot listen: ")
    assert stderr.count(b"\n") == 1


async def test_a_file_that_is_not_there_is_named_and_has_nothing_to_do_with_listening(
    tmp_path: Path,
) -> None:
    shutil.copytree(ROOT / "state_service", tmp_path / "state_service")
    (tmp_path / "state_service" / "openapi.yaml").unlink()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "state_service", "--port", "0", cwd=tmp_path,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, stderr = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 1
    assert stderr.decode().startswith("error: ")
    assert "No such file or directory: " in stderr.decode()
    assert "state_service/openapi.yaml'" in stderr.decode()
    assert "listen" not in stderr.decode()


async def test_it_listens_on_an_ipv6_address_and_prints_one_that_works(tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    async with launched(tmp_path, "--host", "::1") as process:
        assert process.url.startswith("http://[::1]:")
        assert (await process.stop(signal.SIGTERM))[0] == 0


async def test_it_logs_json_lines_and_no_user_ids(tmp_path: Path) -> None:
    async with launched(tmp_path) as process:
        await _record_some(process, "one")
        await process.get("/users/user%201/median")
        _, stderr = await process.stop(signal.SIGTERM)
    lines = stderr.splitlines()
    assert lines
    assert all(line.startswith("{") for line in lines)
    assert not any(user in stderr for user in USERS)


async def _until_logged(process: ServiceProcess, sentence: str) -> str:
    assert process.process.stderr is not None
    lines: list[str] = []
    while sentence not in (line := (await process.process.stderr.readline()).decode()):
        assert line, "".join(lines)
        lines.append(line)
    return line


async def test_a_hangup_reads_tokens_anew_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first-token-of-the-tests\n")
    async with launched(tmp_path, "--write-token-file", str(file)) as process:

        async def status(token: str) -> int:
            headers = {"Authorization": f"Bearer {token}-token-of-the-tests"}
            return (await process.ask("GET", "/stats", headers=headers)).status

        assert (await status("first"), await status("second")) == (200, 401)
        file.write_text("second-token-of-the-tests\n")
        process.process.send_signal(signal.SIGHUP)
        await _until_logged(process, "tokens read anew")
        assert (await status("first"), await status("second")) == (401, 200)
        file.write_text("short\n")
        process.process.send_signal(signal.SIGHUP)
        line = await _until_logged(process, "tokens not read anew")
        assert "STATE_WRITE_TOKEN_FILE" in line
        assert (await status("second")) == 200
        assert (await process.stop(signal.SIGTERM))[0] == 0


async def _opened_for_writing(fifo: Path) -> int:
    """Return a descriptor once somebody reads."""
    for _ in range(4000):
        with contextlib.suppress(OSError):
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        await asyncio.sleep(0.005)
    raise TimeoutError


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
async def test_a_signal_during_the_start_ends_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    fifo = tmp_path / "token"  # the start waits until there is something in it
    os.mkfifo(fifo)
    database = str(tmp_path / "state.db")
    process = await spawn("--port", "0", "--database", database, "--write-token-file", str(fifo))
    token = await _opened_for_writing(fifo)
    process.send_signal(number)
    os.write(token, b"write-token-of-the-tests\n")
    os.close(token)
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
    process.terminate()
    _, stderr = await asyncio.wait_for(process.communicate(), 20)
    assert "listening on http://" in line, stderr
    assert process.returncode == 0
    assert f'"signal": "{number.name}", "event": "signal ignored"' in stderr.decode()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE])
async def test_a_signal_that_means_nothing_here_ends_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with launched(tmp_path) as process:
        await _record_some(process, "one")
        process.process.send_signal(number)
        if number is not signal.SIGPIPE:
            assert number.name in await _until_logged(process, "signal ignored")
        assert (await process.get("/users/user%200/median"))["count"] > 0
        assert (await process.stop(signal.SIGTERM))[0] == 0


async def test_a_log_that_nobody_takes_any_more_ends_nothing(tmp_path: Path) -> None:
    async with launched(tmp_path, "--log-level", "debug") as process:
        pipe = process.process._transport.get_pipe_transport(2)  # type: ignore[attr-defined]  # noqa: SLF001
        pipe.close()
        await asyncio.sleep(0)
        for key in ("one", "two"):  # each is a line at this level
            await _record_some(process, key)
        process.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.process.wait(), 20) == 0
