"""Bodies as plain clients send them: an answer, or an error that says what to send instead."""

import asyncio
import gzip
import json
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brotli
import msgspec
import pytest
from backports import zstd

from tests.state_service.state_support import Client, batch, launched, serving

MARK = b"\xef\xbb\xbf"


def _scores(key: str = "k", **changes: Any) -> bytes:
    return json.dumps({"batches": [batch(key, ["u"], [0.5]) | changes]}).encode()


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "application/octet-stream",
        "application/x-www-form-urlencoded",  # what curl -d says of any body
        "text/plain",
        None,
    ],
)
async def test_a_body_is_read_whatever_it_is_called(
    tmp_path: Path, content_type: str | None
) -> None:
    async with serving(tmp_path) as server:
        options: dict[str, Any] = {"headers": {"Content-Type": content_type or ""}}
        if content_type is None:
            options = {"skip_auto_headers": ["Content-Type"]}
        answer = await server.ask("POST", "/scores", data=_scores(), **options)
        assert (answer.status, answer.body["accepted"]) == (200, 1)
        asked = json.dumps({"user_ids": ["u"]}).encode()
        answer = await server.ask("POST", "/medians", data=asked, **options)
        assert answer.body["items"][0]["median"] == 0.5
        packed: dict[str, Any] = {"batches": [{"key": "m", "events": 0}], "user_id": []}
        packed |= {"timestamp": b"", "score": b""}
        body = msgspec.msgpack.encode(packed)
        if content_type in (None, "application/octet-stream"):
            assert (await server.ask("POST", "/scores", data=body, **options)).status == 200


async def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        assert (await server.ask("POST", "/scores", data=MARK + _scores())).status == 200
        answer = await server.ask("POST", "/medians", data=MARK + b'{"user_ids": ["u"]}')
        assert answer.body["items"][0]["count"] == 1


async def test_integer_ids_are_their_decimal_texts_at_both_addresses(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.record(batch("k", ["u", "7"], [1, 2]) | {"user_id": [7, -8]})
        assert (await server.get("/users/7/median"))["median"] == 1
        medians = await server.post("/medians", {"user_ids": [7, "7", -8]})
        assert [item["user_id"] for item in medians["items"]] == ["7", "7", "-8"]
        assert [item["median"] for item in medians["items"]] == [1, 1, 2]


INSTEAD: dict[str, tuple[bytes, str]] = {
    "several lines": (_scores("a") + b"\n" + _scores("b"), "several JSON documents, one a line"),
    "nothing": (b"", "there is no body: send one object"),
    "UTF-16": (_scores().decode().encode("utf-16"), "UTF-16"),
    "compressed and not said so": (gzip.compress(_scores()), "Content-Encoding"),
    "a form": (b"batches=1", "not JSON: send one object"),
    "CSV": (b"user_id,score\nu,1\n", "not JSON: send one object"),
    "events": (b'{"events": []}', "POST /predictions/scorer"),
    "an event": (b'[{"user_id": "u", "timestamp": 1, "features": []}]', "POST /predictions/scorer"),
    "a batch alone": (b'{"key": "k", "user_id": []}', "a batch stands in a list"),
    "a field that is not known": (_scores(dry_run=True), "unknown field `dry_run`"),
    "a misspelt field": (b'{"batches": [], "stage": {}}', "unknown field `stage`"),
}


@pytest.mark.parametrize("name", INSTEAD)
async def test_what_cannot_be_read_is_told_what_to_send(tmp_path: Path, name: str) -> None:
    body, instead = INSTEAD[name]
    async with serving(tmp_path) as server:
        answer = await server.problem("POST", "/scores", 400, "invalid_request", data=body)
        assert instead in answer.body["detail"]
        assert (await server.get("/stats"))["batch_keys"] == 0


@pytest.mark.parametrize(
    ("factor", "unit"),
    [(1, None), (1e3, "milliseconds"), (1e6, "microseconds"), (1e9, "nanoseconds")],
)
async def test_future_scores_are_told_which_unit_they_seem_to_be_in(
    tmp_path: Path, factor: float, unit: str | None
) -> None:
    async with serving(tmp_path) as server:
        ahead = (time.time() + 1000) * factor
        answer = await server.record(batch("k", ["u", "u"], [1, 1], [time.time(), ahead]))
        assert (answer["accepted"], answer["future"]) == (1, 1)
        assert (unit is None) == ("hint" not in answer)
        assert unit is None or f"look like {unit}: divide them by" in answer["hint"]
        good = await server.record(batch("l", ["u"], [1]))
        assert "hint" not in good


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("zstd", zstd.compress),
        ("br", brotli.compress),
    ],
)
async def test_compressed_bodies_are_taken_and_bounded_after_unpacking(
    tmp_path: Path, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    packed = {"Content-Encoding": encoding}
    async with serving(tmp_path, max_body_bytes=100_000) as server:
        body = compress(_scores())
        assert (await server.ask("POST", "/scores", data=body, headers=packed)).status == 200
        question = compress(b'{"user_ids": ["u"]}')
        answer = await server.ask("POST", "/medians", data=question, headers=packed)
        assert answer.body["items"][0]["count"] == 1
        bomb = compress(b" " * 50_000_000)
        assert len(bomb) < 100_000
        await server.problem("POST", "/scores", 413, "too_large", data=bomb, headers=packed)
        assert (await server.get("/stats"))["limit_hits"]["max_body_bytes"] == 1


async def test_another_compression_is_told_which_are_read(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for encoding in ("compress", "x-gzip", "gzip, gzip"):
            headers = {"Content-Encoding": encoding}
            answer = await server.problem(
                "POST", "/scores", 400, "invalid_request", data=b"{}", headers=headers
            )
            assert answer.body["detail"].endswith("send gzip or zstd, or no compression")


async def _exchange(server: Client, *parts: bytes) -> bytes:
    """Send the parts, each after an answer to the one before; return all that is answered."""
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    answered = b""
    try:
        for part in parts:
            writer.write(part)
            answered += await asyncio.wait_for(reader.read(65_536), 10)
    finally:
        writer.close()
    return answered


def _head(length: int, *lines: str, path: str = "/scores") -> bytes:
    said = ("Host: localhost", "Content-Type: application/json", f"Content-Length: {length}")
    return "\r\n".join((f"POST {path} HTTP/1.1", *said, *lines, "", "")).encode()


async def test_a_body_that_waits_to_be_invited_is_invited_unless_its_head_is_refused(
    tmp_path: Path,
) -> None:
    expect = "Expect: 100-continue"
    async with launched(tmp_path, "--max-body-bytes", "100000") as server:
        body = _scores()
        answered = await _exchange(server, _head(len(body), expect), body)
        assert answered.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
        for head, status in (
            (_head(100_001, expect), b"413 "),
            (_head(len(body), expect, path="/scores?dry_run=1"), b"400 "),
            (_head(len(body), "Expect: the-unexpected"), b"417 "),
        ):
            answered = await _exchange(server, head)
            assert answered.startswith(b"HTTP/1.1 " + status), answered
            assert b"application/problem+json" in answered
            assert b"aiohttp" not in answered
