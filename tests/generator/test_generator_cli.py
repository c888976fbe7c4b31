"""`python -m generator` as a process: exit codes, signals, what is printed where."""

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from generator.cli import app
from generator.progress import shown
from generator.tally import Tally
from tests.generator.generator_fake_services import FakeServices, generate, serving, start_generator

QUICK = ("--rate", "1000", "--duration", "0.5", "--users", "50", "--batch", "10", "--quiet")


def arguments(services: FakeServices, *more: str) -> list[str]:
    return ["run", "--url", services.url, "--state-url", services.url + "/", *QUICK, *more]


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document


async def test_a_good_run_verifies_every_user_and_exits_0(tmp_path: Path) -> None:
    async with serving(FakeServices()) as services:
        file = tmp_path / "result.json"
        ended = await generate(*arguments(services, "--verify", "--json", str(file)))
    assert ended.code == 0, ended.err
    assert ended.err == ""
    result = read(file)
    assert result["sent_events"] == result["accepted_events"] == 500
    assert result["failed_requests"] == result["retries"] == result["unsent_events"] == 0
    assert result["target_rate"] == 1000
    assert 500 < result["achieved_rate"] <= 1000
    assert set(result["latency_ms"]) == {"p50", "p95", "p99", "max"}
    assert 0 < result["latency_ms"]["p50"] <= result["latency_ms"]["max"]
    assert result["verify"]["users_checked"] == len(services.events)
    assert result["verify"]["mismatches"] == result["verify"]["users_in_doubt"] == 0
    assert "exactly the expected median" in ended.out
    assert len(set(services.keys)) == services.attempts == 50
    assert services.dry_runs == 1


async def test_a_wrong_median_exits_1_and_shows_expected_and_got(tmp_path: Path) -> None:
    def distort(item: dict[str, Any]) -> None:
        if item["user_id"] == "p-0" and item["count"]:
            item["median"] += 1e-9

    async with serving(FakeServices(distort=distort)) as services:
        file = tmp_path / "result.json"
        ended = await generate(
            *arguments(services, "--verify", "--user-prefix", "p", "--json", str(file))
        )
    assert ended.code == 1
    assert "p-0: expected" in ended.out
    assert ", got" in ended.out
    verdict = read(file)["verify"]
    assert verdict["mismatches"] == 1
    assert verdict["users_checked"] == len(services.events)


async def test_wrong_counts_exit_1_and_only_the_first_are_listed() -> None:
    def distort(item: dict[str, Any]) -> None:
        item["count"] += 1

    async with serving(FakeServices(distort=distort)) as services:
        ended = await generate(*arguments(services, "--verify"))
    assert ended.code == 1
    assert ended.out.count(": expected") == 10
    assert "more" in ended.out.splitlines()[-1]


async def test_ctrl_c_stops_sending_and_still_verifies_and_reports(tmp_path: Path) -> None:
    async with serving(FakeServices(notify_at_attempt=20)) as services:
        file = tmp_path / "result.json"
        process = await start_generator(
            *arguments(services, "--duration", "60", "--verify", "--json", str(file))
        )
        await services.attempted.wait()
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    assert process.returncode == 130
    assert err == b""
    assert out.startswith(b"interrupted")
    result = read(file)
    assert result["interrupted"] is True
    assert result["accepted_events"] == result["sent_events"] == services.attempts * 10
    assert result["verify"]["mismatches"] == 0
    assert result["verify"]["users_checked"] == len(services.events)


async def test_after_sigterm_what_stays_in_flight_is_waited_for_so_long_and_no_longer() -> None:
    stuck = FakeServices(fault=lambda _: "stall", stall_seconds=30, notify_at_attempt=5)
    async with serving(stuck) as services:
        process = await start_generator(
            *arguments(services, "--duration", "60", "--timeout", "0.5", "--retries", "100")
        )
        await services.attempted.wait()
        process.terminate()
        out, _ = await asyncio.wait_for(process.communicate(), 5)
    assert process.returncode == 130
    assert b"given up when interrupted" in out


async def test_a_second_ctrl_c_ends_the_waiting_too() -> None:
    stuck = FakeServices(fault=lambda _: "stall", stall_seconds=30, notify_at_attempt=5)
    async with serving(stuck) as services:
        process = await start_generator(*arguments(services, "--duration", "60"))
        await services.attempted.wait()
        process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, _ = await asyncio.wait_for(process.communicate(), 5)
    assert process.returncode == 130
    assert b"given up when interrupted" in out


async def test_ctrl_c_while_verifying_ends_it_without_a_verdict() -> None:
    async with serving(FakeServices(median_stall_seconds=30)) as services:
        process = await start_generator(*arguments(services, "--duration", "0.1", "--verify"))
        await services.verifying.wait()
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(process.communicate(), 5)
    assert process.returncode == 130
    assert err == b""
    assert b"NOT VERIFIED: interrupted while verifying" in out
    assert b"100 sent, 100 accepted" in out


async def test_an_unreachable_scorer_exits_2_with_one_sentence() -> None:
    ended = await generate("run", "--url", "http://127.0.0.1:9", *QUICK)
    assert ended.code == 2
    assert ended.out == ""
    assert len(ended.err.splitlines()) == 1
    assert "http://127.0.0.1:9/predictions/scorer" in ended.err
    assert "Connection refused" in ended.err
    assert "--url" in ended.err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--rate", "0"),
        ("--rate", "nan"),
        ("--duration", "-1"),
        ("--disorder", "inf"),
        ("--users", "0"),
        ("--batch", "50001"),
        ("--url", "localhost:8080"),
        ("--url", "http://localhost:port"),
        ("--json", "/no/such/folder/result.json"),
        ("--popularity", "viral"),
        ("--user-prefix", ""),
        ("--user-prefix", "é" * 101),
    ],
)
def test_a_bad_value_exits_2_and_names_its_option(option: str, value: str) -> None:
    ended = CliRunner().invoke(app, ["run", option, value])
    assert ended.exit_code == 2
    assert f"'{option}'" in ended.stderr


def test_help_documents_every_option() -> None:
    ended = CliRunner().invoke(app, ["run", "--help"])
    assert ended.exit_code == 0
    for option in ("--rate", "--verify", "--json", "--disorder", "--user-prefix", "--drain"):
        assert option in ended.stdout
    assert "130 interrupted" in " ".join(ended.stdout.split())


async def test_progress_is_plain_lines_on_stderr_without_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tally = Tally(accepted_events=40)
    async with shown(tally, 5000, 60, quiet=False, plain_every_seconds=0.05):
        await asyncio.sleep(0.08)
    captured = capsys.readouterr()
    assert re.match(r"0/60 s  40 events  [\d,]+/5,000 a second  p99 - ", captured.err)
    assert captured.out == ""
    assert "\x1b" not in captured.err


async def test_progress_is_a_live_bar_in_a_terminal() -> None:
    ours, theirs = pty.openpty()
    async with serving(FakeServices()) as services:
        loud = [argument for argument in arguments(services) if argument != "--quiet"]
        process = await start_generator(*loud, "--duration", "0.8", stderr=theirs)
        os.close(theirs)
        out, _ = await process.communicate()
    shown_bytes = b""
    with contextlib.suppress(OSError):  # a terminal whose other end is closed reads as an error
        while chunk := os.read(ours, 65_536):
            shown_bytes += chunk
    os.close(ours)
    assert process.returncode == 0
    assert b"\x1b" in shown_bytes
    assert b"1,000 a second" in shown_bytes
    assert b"\x1b" not in out


async def test_a_run_without_arrow_never_imports_pyarrow() -> None:
    code = (
        "import sys, generator.cli; from generator.encoding import encoder; encoder('ndjson'); "
        "assert 'pyarrow' not in sys.modules; encoder('arrow'); assert 'pyarrow' in sys.modules"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await process.wait() == 0


async def test_the_format_is_an_option() -> None:
    async with serving(FakeServices()) as services:
        ended = await generate(
            "run", "--url", services.url, "--rate", "100", "--duration", "0.1", "--quiet",
            "--format", "arrow",
        )  # fmt: skip
    assert ended.code == 0, ended.err
    assert services.content_types == {"application/vnd.apache.arrow.stream"}


async def test_tokens_come_from_files_too(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("one\n")
    (tmp_path / "two").write_text("two")
    files = ("--token-file", str(tmp_path / "one"), "--state-token-file", str(tmp_path / "two"))
    async with serving(FakeServices()) as services:
        ended = await generate(*arguments(services, *files, "--verify"))
    assert ended.code == 0, ended.err
    assert services.authorizations == {
        "/predictions/scorer Bearer one", "/medians Bearer two"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (("--token", "secret-1", "--token-file", "x"), "not both"),
        (("--state-token-file", "/nonexistent/x"), "No such file"),
        (("--token", ""), "not empty"),
        (("--state-token", "secret-1\r\nX-Evil: 1"), "ASCII"),
    ],
)
def test_a_token_that_cannot_be_sent_exits_2_and_is_not_shown(
    given: tuple[str, ...], complaint: str
) -> None:
    ended = CliRunner().invoke(app, ["run", *given])
    assert ended.exit_code == 2
    said = " ".join(re.sub(r"[│\x1b]|\[[\d;]*m", " ", ended.output).split())
    assert complaint in said
    assert "secret-1" not in said
