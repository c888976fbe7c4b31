"""Hostile requests at a state service that runs, and what the fuzzer makes of harm."""

import io
import json
import signal
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fuzzing.campaign import attack, sendings
from fuzzing.framing import Sending
from fuzzing.judging import faults, log_faults, who_answered
from fuzzing.neighbour import neighbour
from fuzzing.talking import Answer, Outcome
from fuzzing.tokens import FORGED
from tests.state_service.state_support import launched

REQUESTS = 900  # the odd framing, a third of it, takes nearly all of the time
ORDINARY = Sending("ordinary", b"GET / HTTP/1.1\r\n\r\n", ordinary=True)
PROBLEM = "application/problem+json"


async def test_no_request_does_harm_and_a_good_client_beside_them_is_answered_exactly(
    tmp_path: Path,
) -> None:
    async with launched(tmp_path) as service:
        where = urlsplit(service.url)
        assert where.hostname
        assert where.port
        async with neighbour(None, service.url) as watch:
            what = sendings("state", REQUESTS, 1, time.time(), by_hand_too=False)
            report = await attack("state", (where.hostname, where.port), what)
        _, log = await service.stop(signal.SIGTERM)
    assert report.sent == REQUESTS
    assert report.faults == []
    assert watch.faults == []
    assert watch.rounds > 0
    assert report.answers["service 200"] > 50
    assert report.answers["service 400"] > 50
    assert list(log_faults(io.StringIO(log, newline="\n"), json_lines=True)) == []
    assert {json.loads(line)["event"] for line in log.splitlines()} == {"restored"}


@pytest.mark.parametrize(
    ("outcome", "what"),
    [
        (Outcome(), "silence"),
        (Outcome(closed=True), "without an answer"),
        (Outcome([Answer(500, PROBLEM, b"{}", 2)]), "500"),
        (Outcome([Answer(503, PROBLEM, b'{"code":"scoring_failed"}', 25)]), "503"),
        (Outcome([Answer(200, "application/json", b"{", 1)]), "not JSON"),
        (Outcome([Answer(200, "application/json", b"[]", 2), Answer(507)]), "507"),
    ],
)
def test_what_must_not_come_back_is_a_fault(outcome: Outcome, what: str) -> None:
    (fault,) = faults(ORDINARY, outcome, "state")
    assert what in fault.what


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome([Answer(400, PROBLEM, b"{}", 2)], closed=True),
        Outcome([Answer(503, PROBLEM, b'{"code":"busy"}', 15)]),
        Outcome([Answer(200, "application/json", b"[", 10_000)]),  # the rest was not kept
    ],
)
def test_what_may_come_back_is_none(outcome: Outcome) -> None:
    assert list(faults(ORDINARY, outcome, "state")) == []


def test_hanging_up_is_an_answer_to_what_is_not_well_formed() -> None:
    odd = Sending("odd", b"\x16\x03\x01")
    assert list(faults(odd, Outcome(closed=True), "scorer")) == []
    assert [fault.what[:7] for fault in faults(odd, Outcome(), "scorer")] == ["silence"]


def test_it_is_told_who_answered() -> None:
    torchserve = b'{"code": 500, "type": "X", "message": "y"}'
    assert who_answered(Answer(400, PROBLEM, b"{}"), "scorer") == "handler"
    assert who_answered(Answer(500, "application/json", torchserve), "scorer") == "TorchServe"
    assert who_answered(Answer(413, "", b""), "scorer") == "netty"
    assert who_answered(Answer(400, "text/plain", b"Bad"), "state") == "aiohttp"
    (fault,) = faults(ORDINARY, Outcome([Answer(500, "text/plain", torchserve)]), "scorer")
    assert not fault.ours


@pytest.mark.parametrize(
    ("line", "json_lines"),
    [
        (f"{FORGED}: all is well\n", False),
        (f'  {FORGED} {{"event": 1}}\n', True),
        ("2026-11-23T16:49:22,682 WARN X: \x1b[2J\n", False),
        ('{"event": "a\u2028b"}\n', True),
        ('{"event": "a"}\rb\n', True),
        ("Traceback (most recent call last):\n", True),
        ("something else\n", False),
    ],
)
def test_a_line_that_a_client_wrote_is_found(line: str, *, json_lines: bool) -> None:
    assert list(log_faults([line], json_lines=json_lines))


@pytest.mark.parametrize(
    ("line", "json_lines"),
    [
        (json.dumps({"event": f"\n{FORGED}"}) + "\n", True),
        (f"2026-11-23T16:49:22,682 WARN AccessLog: {FORGED}\n", False),
        ("\tat io.netty.channel.Abstract$1.run(Abstract.java:1) [model-server.jar:?]\n", False),
        ("java.lang.IllegalArgumentException: no\n", False),
    ],
)
def test_a_line_that_merely_quotes_a_client_is_none(line: str, *, json_lines: bool) -> None:
    assert list(log_faults([line], json_lines=json_lines)) == []
