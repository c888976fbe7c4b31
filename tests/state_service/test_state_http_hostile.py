"""Requests that are no HTTP, or hardly: what they are answered, and that no log shows them."""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from tests.state_service.state_support import Client, batch, launched, serving

MALFORMED = [
    b"GET /users/secret\xff/median HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /users/secret\x00/median HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /secret HTTP/9.9\r\nHost: a\r\n\r\n",
    b"GET /secret HTTP/1.1\nHost: a\n\n",
    b"GET /secret HTTP/1.1\r\nsecret\r\n\r\n",
    b"POST /scores HTTP/1.1\r\nContent-Length: -1\r\nX: secret\r\n\r\n",
    b"POST /scores HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /scores HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"POST /scores HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nsecret\r\n",
    b"GET /" + b"secret" * 2000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /scores HTTP/1.1\r\nConnection: close\r\nContent-Encoding: gzip\r\n%s"
    % b"Content-Length: 6\r\n\r\nsecret",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]

# The service, in which recording fails and a library has something to say.
FAILING = """
import logging
from state_service.__main__ import main
from state_service.service import StateService

async def record(service, batches):
    logging.getLogger("a.library").error("two\\nlines")
    1 / 0

StateService.record = record
main()
"""


async def _send(server: Client, request: bytes) -> bytes:
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        await writer.drain()
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


async def test_what_is_no_http_is_refused_and_leaves_no_line_in_the_log(tmp_path: Path) -> None:
    async with launched(tmp_path) as process:
        for request in MALFORMED:
            answer = await _send(process, request)
            assert b" 400 " in answer.partition(b"\r\n")[0], request
            assert b"Content-Type: application/problem+json\r\n" in answer, request
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "invalid_request"
            assert b"Server: medianserve\r\n" in answer
            assert b"aiohttp" not in answer
        status, log = await process.stop(signal.SIGTERM)
    assert status == 0
    assert "secret" not in log
    assert [json.loads(line)["event"] for line in log.splitlines()] == ["restored"]


async def test_a_failure_is_logged_on_one_line_whoever_logs_it(tmp_path: Path) -> None:
    async with launched(tmp_path, program=("-c", FAILING)) as process:
        answer = await process.ask("POST", "/scores", json={"batches": [batch("k", ["u"], [1])]})
        assert answer.status == 500
        _, log = await process.stop(signal.SIGTERM)
    events = [json.loads(line) for line in log.splitlines()]
    assert [event["event"] for event in events] == ["restored", "two\nlines", "request failed"]
    assert "ZeroDivisionError" in events[2]["exception"]


@pytest.mark.parametrize(
    "text", ["1_0", "%D9%A1", "0x10", "inf", "-Infinity", "nan", "1e999", "", "1,5", "5s", "--5"]
)
async def test_a_number_in_an_address_is_as_in_json(tmp_path: Path, text: str) -> None:
    async with serving(tmp_path) as server:
        for name in ("window", "at"):
            await server.problem("GET", f"/users/a/median?{name}={text}", 400, "invalid_request")
        if text != "1,5":
            await server.problem("GET", f"/users/a/stats?q={text}", 400, "invalid_request")
        assert (await server.get("/users/a/median?window=1.5e1"))["window_seconds"] == 15


async def test_a_user_id_that_is_not_utf8_is_refused_and_is_nobody_elses(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.record(batch("k", ["%ff", "é%"], [1, 2]))
        for question in ("median", "stats"):
            for name in ("%ff", "a%FF", "%ed%a0%80", "%C3"):
                path = f"/users/{name}/{question}"
                await server.problem("GET", path, 400, "invalid_request")
            assert (await server.get(f"/users/%25ff/{question}"))["median"] == 1
            assert (await server.get(f"/users/%C3%A9%25/{question}"))["median"] == 2


async def test_no_name_of_a_file_below_docs_is_more_than_not_found(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for name in (
            "",
            "nothing",
            "u" * 300,
            "a/" * 3000,
            "a%00b",
            "%2e%2e/core.py",
            "../core.py",
        ):
            await server.problem("GET", f"/docs/static/{name}", 404, "not_found")
        answer = await server.ask("GET", "/docs/static/swagger-ui.css")
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/css")


@pytest.mark.parametrize("beginning", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: a\r\n", b"\r\n\r\n"])
async def test_a_connection_on_which_no_request_arrives_is_closed_and_others_are_not(
    tmp_path: Path, beginning: bytes
) -> None:
    async with launched(tmp_path, "--body-timeout-seconds", "0.5") as process:
        host, port = process.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b" 200 " in await reader.readline()
            assert await _send(process, beginning) == b""
            # A connection that a request has come from may be idle for longer.
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert (await asyncio.wait_for(reader.read(), 5)).count(b"alive") == 2
        finally:
            writer.close()
