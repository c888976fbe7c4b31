"""`POST /ingest`: what goes on to TorchServe, what comes back, and every way it may fail."""

import asyncio
import contextlib
import gzip
import io
import json
import re
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import brotli
import pytest
from aiohttp import web
from backports import zstd
from yarl import URL

from state_service.ingest import INGEST
from tests.state_service.scorer_fake import (
    ANSWER,
    Scorer,
    answer_well,
    break_off,
    never_answer,
    scorer,
)
from tests.state_service.state_support import Server, serving

READ, WRITE = "read-token-of-the-tests", "write-token-of-the-tests"
SENDER = "ingest-token-of-the-tests"
TOKENS: dict[str, Any] = {"read_token": READ, "write_token": WRITE, "ingest_token": SENDER}


@contextlib.asynccontextmanager
async def both(
    folder: Path, act: Callable[[Scorer, web.Request], Awaitable[web.StreamResponse]] = answer_well,
    **settings: Any,
) -> AsyncIterator[tuple[Server, Scorer]]:  # fmt: skip
    async with (
        scorer(Scorer(act)) as behind,
        serving(folder, torchserve_url=behind.url, **settings) as server,
    ):
        yield server, behind


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


# --- what goes on, what comes back ----------------------------------------------------------------


async def test_a_body_goes_on_byte_for_byte_with_the_headers_that_mean_something(
    tmp_path: Path,
) -> None:
    meant = {
        "Content-Type": "application/x-ndjson",
        "Idempotency-Key": "order-17",
        "X-Dry-Run": "1",
        "X-Request-ID": "r-1",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    }
    async with both(tmp_path) as (server, behind):
        body = bytes(range(256)) * 1000
        answer = await server.ask("POST", "/ingest", data=body, headers={**meant, "Cookie": "c=1"})
        assert (answer.status, answer.text.encode()) == (200, ANSWER)
    assert behind.bodies == [body]
    (head,) = behind.heads
    assert {name: head.get(name) for name in meant} == meant
    assert head["Content-Length"] == str(len(body))
    assert set(head) - set(meant) <= {"Host", "Accept", "Content-Length"}


async def test_a_body_of_no_stated_length_goes_on_as_it_comes(tmp_path: Path) -> None:
    async with both(tmp_path) as (server, behind):

        async def parts() -> AsyncIterator[bytes]:
            yield b"first"
            await behind.arrived.wait()  # it never would be, were the body kept until its end
            yield b"second"

        assert (await server.ask("POST", "/ingest", data=parts())).status == 200
        assert behind.bodies == [b"firstsecond"]


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", zstd.compress),
        ("br", brotli.compress), ("BR", brotli.compress),
    ],
)  # fmt: skip
async def test_a_packed_body_goes_on_unpacked_and_is_bounded_so(
    tmp_path: Path, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    async with both(tmp_path, max_body_bytes=1000) as (server, behind):
        packed = {"headers": {"Content-Encoding": encoding}}
        data = compress(b"x" * 1000)
        assert (await server.ask("POST", "/ingest", data=data, **packed)).status == 200
        assert behind.bodies == [b"x" * 1000]
        assert "Content-Encoding" not in behind.heads[0]
        data = compress(b"x" * 1001)
        await server.problem("POST", "/ingest", 413, "too_large", data=data, **packed)


@pytest.mark.parametrize("encoding", ["x-gzip", "identity", "compress", "gzip, gzip"])
async def test_what_is_packed_in_another_way_is_left_to_the_scorer(
    tmp_path: Path, encoding: str
) -> None:
    async with both(tmp_path) as (server, behind):
        data = gzip.compress(b"{}")
        sent = {"data": data, "headers": {"Content-Encoding": encoding}}
        assert (await server.ask("POST", "/ingest", **sent)).status == 200
        assert behind.bodies == [data]
        assert behind.heads[0]["Content-Encoding"] == encoding


async def test_an_answer_comes_back_with_its_status_and_its_headers(tmp_path: Path) -> None:
    async def refuse(_scorer: Scorer, _request: web.Request) -> web.Response:
        headers = {"Retry-After": "3", "traceparent": "00-1", "X-Request-ID": "of-torchserve"}
        headers |= {
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Credentials": "true",
            "Set-Cookie": "a=b",
            "Cache-Control": "public",
            "ts_stream_next": "false",
        }
        problem = b'{"code": "not_recorded"}'
        kind = "application/problem+json"
        return web.Response(status=503, body=problem, headers=headers, content_type=kind)

    async with both(tmp_path, refuse) as (server, _):
        answer = await server.ask("POST", "/ingest", data=b"{}")
        assert (answer.status, answer.body) == (503, {"code": "not_recorded"})
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers["Retry-After"] == "3"
        assert answer.headers["traceparent"] == "00-1"
        assert answer.headers["X-Request-ID"] == "of-torchserve"
        assert answer.headers.getall("Server") == ["medianserve"]  # type: ignore[attr-defined]
        assert answer.headers["Cache-Control"] == "no-store"
        for name in ("Access-Control-Allow-Origin", "Set-Cookie", "ts_stream_next"):
            assert name not in answer.headers, name


async def _sent_raw(server: Server, *headers: bytes) -> bytes:
    """Send a body of two bytes with headers of any bytes; return all that is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(server.url).port)
    head = (b"POST /ingest HTTP/1.1", b"Host: localhost", b"Connection: close", *headers)
    writer.write(b"\r\n".join((*head, b"Content-Length: 2", b"", b"{}")))
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return answer


@pytest.mark.parametrize(
    "name",
    [
        "Accept", "Authorization", "Content-Type", "Idempotency-Key", "traceparent", "tracestate",
        "X-Dry-Run", "X-Request-ID",
    ],
)  # fmt: skip
async def test_a_header_goes_on_as_it_came_or_is_refused_by_name(tmp_path: Path, name: str) -> None:
    async with both(tmp_path) as (server, behind):
        answer = await _sent_raw(server, name.encode() + b": order-\xe91")
        assert answer.startswith(b"HTTP/1.1 400 "), answer
        assert f"the header {name} has bytes that are not UTF-8" in answer.decode()
        assert behind.heads == []
        answer = await _sent_raw(server, name.encode() + b": order-\xc3\xa91")
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        assert behind.heads[0][name].encode() == b"order-\xc3\xa91"


async def test_a_header_that_does_not_go_on_may_hold_any_bytes(tmp_path: Path) -> None:
    async with both(tmp_path) as (server, behind):
        answer = await _sent_raw(server, b"User-Agent: caf\xe9")
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        assert len(behind.bodies) == 1


async def test_a_parameter_is_refused(tmp_path: Path) -> None:
    async with both(tmp_path) as (server, behind):
        await server.problem("POST", "/ingest?dry_run=1", 400, "invalid_request", data=b"{}")
        assert behind.heads == []


# --- tokens and keys ------------------------------------------------------------------------------


async def test_with_tokens_the_service_shows_torchserves_key_and_never_a_token_of_its_own(
    tmp_path: Path,
) -> None:
    file = tmp_path / "key_file.json"
    settings = {"torchserve_key_file": str(file), **TOKENS}
    async with both(tmp_path, **settings) as (server, behind):

        async def shown(token: str) -> str | None:
            headers = {"Authorization": f"Bearer {token}"}
            assert (await server.ask("POST", "/ingest", data=b"{}", headers=headers)).status == 200
            return behind.heads[-1].get("Authorization")

        assert await shown(SENDER) is None  # there is no key yet
        for key in ("first", "the-second"):  # TorchServe has been started again
            file.write_text(json.dumps({"management": {"key": "m"}, "inference": {"key": key}}))
            assert await shown(SENDER) == await shown(WRITE) == f"Bearer {key}"
        file.write_text("{")  # it is being written
        assert await shown(SENDER) is None
        refused = {"headers": {"Authorization": f"Bearer {READ}"}, "data": b"{}"}
        count = len(behind.heads)
        answer = await server.problem("POST", "/ingest", 403, "forbidden", **refused)
        assert "ingest token" in answer.body["detail"]
        await server.problem("POST", "/ingest", 401, "unauthorized", data=b"{}")
        sender = {"headers": {"Authorization": f"Bearer {SENDER}"}}
        await server.problem("GET", "/users/u/median", 403, "forbidden", **sender)
        await server.problem("POST", "/scores", 403, "forbidden", **sender)
        assert len(behind.heads) == count


async def test_without_tokens_a_client_shows_torchserves_key_itself(tmp_path: Path) -> None:
    file = tmp_path / "key_file.json"
    file.write_text(json.dumps({"inference": {"key": "of-torchserve"}}))
    async with both(tmp_path, torchserve_key_file=str(file)) as (server, behind):
        await server.ask("POST", "/ingest", data=b"{}")
        await server.ask("POST", "/ingest", data=b"{}", headers={"Authorization": "Bearer own"})
        assert [head.get("Authorization") for head in behind.heads] == [None, "Bearer own"]


# --- what fails -----------------------------------------------------------------------------------


async def test_without_torchserves_address_the_setting_is_named(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        answer = await server.problem("POST", "/ingest", 501, "not_configured", data=b"{}")
        assert "STATE_TORCHSERVE_URL" in answer.body["detail"]


async def test_a_torchserve_that_is_away_has_counted_nothing(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        async with serving(tmp_path, torchserve_url=url) as server:
            answer = await server.problem("POST", "/ingest", 503, "torchserve_away", data=b"{}")
            assert "nothing was counted" in answer.body["detail"]


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [({"Idempotency-Key": "k"}, "it counts once"), ({}, "it may count twice")],
)
async def test_when_torchserve_breaks_off_or_is_late_it_is_not_known_what_was_counted(
    tmp_path: Path, headers: dict[str, str], sentence: str
) -> None:
    asked: dict[str, Any] = {"data": b"{}", "headers": headers}
    async with both(tmp_path, break_off) as (server, _):
        answer = await server.problem("POST", "/ingest", 502, "torchserve_failed", **asked)
        assert "is not known" in answer.body["detail"]
        assert sentence.removeprefix("it ") in answer.body["detail"]
    async with both(tmp_path, never_answer, ingest_timeout_seconds=0.2) as (server, _):
        answer = await server.problem("POST", "/ingest", 504, "torchserve_timeout", **asked)
        assert sentence.removeprefix("it ") in answer.body["detail"]
        assert (await server.get("/stats"))["limit_hits"]["ingest_timeout_seconds"] == 1


async def test_a_torchserve_that_never_had_all_of_the_body_has_counted_nothing(
    tmp_path: Path,
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"x"
            await asyncio.sleep(0.1)

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as other:
        host, port = other.sockets[0].getsockname()
        async with serving(tmp_path, torchserve_url=f"http://{host}:{port}") as server:
            answer = await server.ask("POST", "/ingest", data=parts())
            assert (answer.status, answer.body["code"]) == (502, "torchserve_failed")
            assert "nothing was counted" in answer.body["detail"]


async def test_what_is_no_http_is_a_502(tmp_path: Path) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"no HTTP at all\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1", 0) as other:
        host, port = other.sockets[0].getsockname()
        async with serving(tmp_path, torchserve_url=f"http://{host}:{port}") as server:
            await server.problem("POST", "/ingest", 502, "torchserve_failed", data=b"{}")


@pytest.mark.parametrize("stated", [True, False])
async def test_a_body_over_the_limit_is_refused_and_torchserve_never_has_it_whole(
    tmp_path: Path, stated: bool
) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 400
            await asyncio.sleep(0)

    data = b"x" * 1200 if stated else parts()
    async with both(tmp_path, max_body_bytes=1000) as (server, behind):
        assert (await server.ask("POST", "/ingest", data=b"x" * 1000)).status == 200
        await server.problem("POST", "/ingest", 413, "too_large", data=data)
        assert [len(body) for body in behind.bodies] == [1000]
        assert (await server.get("/stats"))["limit_hits"]["max_body_bytes"] == 1


async def test_an_answer_without_end_is_given_up(tmp_path: Path) -> None:
    async def talk(_scorer: Scorer, _request: web.Request) -> web.Response:
        return web.Response(body=b"x" * 2000)

    async with both(tmp_path, talk, max_body_bytes=1000) as (server, _):
        answer = await server.problem("POST", "/ingest", 502, "torchserve_failed", data=b"{}")
        assert "max_body_bytes" in answer.body["detail"]


async def test_a_slow_body_is_given_up(tmp_path: Path) -> None:
    async with both(tmp_path, body_timeout_seconds=0.3) as (server, behind):

        async def parts() -> AsyncIterator[bytes]:
            yield b"begun"
            await asyncio.sleep(30)

        await server.problem("POST", "/ingest", 400, "body_timeout", data=parts())
        assert (behind.bodies, server.app[INGEST].in_flight) == ([], 0)
        assert (await server.get("/stats"))["limit_hits"]["body_timeout_seconds"] == 1


@contextlib.asynccontextmanager
async def _reading_late(seconds: float) -> AsyncIterator[str]:
    """Give the address of a TorchServe that lets a body wait before it reads it."""
    over, ended = asyncio.Event(), asyncio.Event()

    async def read_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"(?i)content-length: (\d+)", head)
        assert found
        try:
            await asyncio.wait_for(over.wait(), seconds)
        except TimeoutError:
            await reader.readexactly(int(found[1]))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()
        ended.set()

    async with await asyncio.start_server(read_late, "127.0.0.1", 0, limit=1000) as other:
        host, port = other.sockets[0].getsockname()
        yield f"http://{host}:{port}"
        over.set()
        await ended.wait()


async def test_a_torchserve_that_reads_slowly_is_not_blamed_on_the_client(tmp_path: Path) -> None:
    body = bytes(24_000_000)  # more than sockets take by themselves
    async with _reading_late(3) as url:
        limits: dict[str, Any] = {"body_timeout_seconds": 2.0}
        async with serving(tmp_path, torchserve_url=url, **limits) as server:
            assert (await server.ask("POST", "/ingest", data=io.BytesIO(body))).status == 200
    async with _reading_late(30) as url:
        limits = {"body_timeout_seconds": 1.0, "ingest_timeout_seconds": 0.5}
        async with serving(tmp_path, torchserve_url=url, **limits) as server:
            sent = {"data": io.BytesIO(body)}
            answer = await server.problem("POST", "/ingest", 504, "torchserve_timeout", **sent)
            assert "nothing was counted" in answer.body["detail"]


async def test_more_at_once_than_the_limit_are_told_to_wait_and_do_not_keep_out_scores(
    tmp_path: Path,
) -> None:
    limits = {"max_ingests_in_flight": 2, "max_requests_in_flight": 1}
    async with both(tmp_path, never_answer, **limits) as (server, behind):
        waiting = [asyncio.create_task(server.ask("POST", "/ingest", data=b"{}")) for _ in range(2)]
        await until(lambda: len(behind.bodies) == 2)
        await server.problem("POST", "/ingest", 503, "busy", data=b"{}")
        assert (await server.record())["accepted"] == 0
        metrics = (await server.ask("GET", "/metrics")).text
        assert "medianserve_ingests_in_flight 2.0" in metrics
        assert "medianserve_ingests_in_flight_limit 2.0" in metrics
        assert 'medianserve_limit_hits_total{limit="max_ingests_in_flight"} 1.0' in metrics
        behind.go_on.set()
        assert {(await task).status for task in waiting} == {200}
        assert server.app[INGEST].in_flight == 0


async def test_a_client_that_goes_away_ends_its_request_at_torchserve(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def wait_for_end(_scorer: Scorer, request: web.Request) -> web.Response:
        await until(lambda: request.transport is None)
        ended.set()
        return web.Response()

    async with both(tmp_path, wait_for_end) as (server, behind):
        asking = asyncio.create_task(server.ask("POST", "/ingest", data=b"{}"))
        await until(lambda: len(behind.bodies) == 1)
        asking.cancel()
        await asyncio.wait_for(ended.wait(), 20)
        await until(lambda: server.app[INGEST].in_flight == 0)
        metrics = (await server.ask("GET", "/metrics")).text
        gone = 'medianserve_http_requests_total{method="POST",route="/ingest",status="499"} 1.0'
        assert gone in metrics


async def test_a_client_that_goes_away_in_the_middle_of_its_body_has_counted_nothing(
    tmp_path: Path,
) -> None:
    async with both(tmp_path) as (server, behind):
        host, port = server.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /ingest HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100\r\n\r\nhalf"
        writer.write(head.encode())
        await behind.arrived.wait()
        writer.close()
        await until(lambda: server.app[INGEST].in_flight == 0)
        assert behind.bodies == []
