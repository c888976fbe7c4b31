"""`POST /scores`: what it takes, what it refuses, and that it counts once."""

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.state_service.state_support import batch, serving

MSGPACK = {"Content-Type": "application/msgpack"}
JSON = {"Content-Type": "application/json"}


async def test_it_tells_what_became_of_every_event(tmp_path: Path) -> None:
    now = time.time()
    async with serving(tmp_path) as server:
        answer = await server.record(
            batch("k", ["a", "a", "b", "b"], [1, 2, 3, 4], [now, now - 999, now + 999, now - 1]),
            batch("l", ["c"], [5]),
            batch("nothing", [], []),
        )
        assert answer == {
            "accepted": 3,
            "late": 1,
            "future": 1,
            "forgotten": 0,
            "duplicates": 0,
            "batches": [
                {"accepted": 2, "late": 1, "future": 1, "duplicate": False},
                {"accepted": 1, "late": 0, "future": 0, "duplicate": False},
                {"accepted": 0, "late": 0, "future": 0, "duplicate": False},
            ],
        }
        assert (await server.get("/users/b/median"))["newest_timestamp"] == now - 1
        assert (await server.record())["batches"] == []


async def test_a_batch_sent_again_changes_nothing_and_reports_its_first_counts(
    tmp_path: Path,
) -> None:
    now = time.time()
    first = batch("k", ["a", "a", "b"], [1, 3, 5], [now, now, now - 999])
    counts = {"accepted": 2, "late": 1, "future": 0}
    async with serving(tmp_path) as server:
        assert (await server.record(first))["batches"] == [counts | {"duplicate": False}]
        for _ in range(2):
            again = await server.record(first)
            assert again["batches"] == [counts | {"duplicate": True}]
            assert (again["accepted"], again["late"], again["duplicates"]) == (0, 0, 3)
        # The key alone decides: other events under it are not applied either.
        other = await server.record(batch("k", ["a"], [1000]))
        assert other["batches"] == [counts | {"duplicate": True}]
        assert (await server.get("/users/a/median"))["median"] == 2
        stats = await server.get("/stats")
        assert (stats["ingest_requests"], stats["accepted"], stats["duplicates"]) == (1, 2, 7)
    async with serving(tmp_path) as server:
        assert (await server.record(first))["batches"] == [counts | {"duplicate": True}]
        assert (await server.get("/users/a/median"))["count"] == 2


async def test_a_batch_twice_in_one_request_is_counted_once(tmp_path: Path) -> None:
    first = batch("k", ["a", "a"], [1, 3])
    async with serving(tmp_path) as server:
        answer = await server.record(first, batch("l", ["a"], [2]), first)
        assert [item["duplicate"] for item in answer["batches"]] == [False, False, True]
        assert (answer["accepted"], answer["duplicates"]) == (3, 2)
        assert (await server.get("/users/a/median"))["count"] == 3


async def test_the_next_median_includes_what_was_acknowledged(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:

        async def write_and_read(number: int) -> None:
            user = f"user {number}"
            for count in range(1, 6):
                await server.record(batch(f"{user} {count}", [user], [count]))
                body = await server.get(f"/users/user%20{number}/median")
                assert (body["count"], body["median"]) == (count, (count + 1) / 2)

        await asyncio.gather(*(write_and_read(number) for number in range(20)))


def _with(**fields: Any) -> bytes:
    return msgspec.json.encode(
        {"batches": [batch("good", ["u"], [1]), batch("k", ["u"], [1]) | fields]}
    )


BAD_BODIES = {
    "empty": b"",
    "truncated": _with()[:-5],
    "not UTF-8": b'{"batches": [{"key": "\xff"}]}',
    "an array": b"[]",
    "null": b"null",
    "no batches": b"{}",
    "batches of another type": b'{"batches": {"key": "k"}}',
    "nested too deeply": b'{"batches":' + b"[" * 100_000,
    "two documents": _with() + b"{}",
    "NaN": _with().replace(b"[1]", b"[NaN]"),
    "Infinity": _with().replace(b"[1]", b"[Infinity]"),
    "a number beyond float64": _with().replace(b"[1]", b"[1e400]"),
    "a score that is text": _with(score=["1"]),
    "a score that is null": _with(score=[None]),
    "a timestamp that is a date": _with(timestamp=["2026-01-01T00:00:00Z"]),
    "a user id that is no integer": _with(user_id=[7.5]),
    "a field that is not known": _with(recieved_at=1),
    "an empty user id": _with(user_id=[""]),
    "a user id that is too long": _with(user_id=["é" * 129]),
    "a lone surrogate": _with().replace(b'"u"', b'"\\ud800"'),
    "an empty key": _with(key=""),
    "a key that is too long": _with(key="k" * 129),
    "no key": _with(key=None),
    "fewer scores than users": _with(score=[]),
    "more timestamps than users": _with(timestamp=[1, 2]),
    "a negative count": _with(skipped=-1),
}


async def test_a_bad_body_is_refused_whole_and_applies_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        refused = (await server.get("/stats"))["requests_refused"]
        for name, body in BAD_BODIES.items():
            answer = await server.problem("POST", "/scores", 400, "invalid_request", data=body)
            assert answer.body["detail"], name
        stats = await server.get("/stats")
        assert (stats["live_events"], stats["batch_keys"], stats["ingest_requests"]) == (0, 0, 0)
        assert stats["requests_refused"] - refused == len(BAD_BODIES)


async def test_the_place_of_a_mistake_is_named(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for body, place in [
            (_with(score=[]), "batches[1]: user_id, timestamp and score must have one length"),
            (_with(user_id=[""]), "batches[1].user_id[0] must have 1 to 256 bytes"),
            (_with(key=""), "batches[1].key must have 1 to 128 bytes"),
            (_with(score=["1"]), "$.batches[1].score[0]"),
            (_with(score=["x"]).replace(b'"x"', b"NaN"), "batches[1].score[0] is NaN"),
            (_with(score=["x"]).replace(b'"x"', b"-Infinity"), "batches[1].score[0] is NaN"),
            (_with(score=["x"]).replace(b'"x"', b"1e400"), "$.batches[1].score[0]"),
        ]:
            answer = await server.problem("POST", "/scores", 400, "invalid_request", data=body)
            assert place in answer.body["detail"]


async def test_limits_hold_to_the_byte(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for user in ("u" * 256, "é" * 128, "\N{GRINNING FACE}" * 64):
            assert (await server.record(batch(user[:9], [user], [1])))["accepted"] == 1
            body = {"user_ids": [user]}
            assert (await server.post("/medians", body))["items"][0]["count"] == 1
        assert (await server.record(batch("é" * 64, ["u"], [1])))["accepted"] == 1
        await server.problem(
            "POST", "/medians", 400, "invalid_request", json={"user_ids": ["é" * 128 + "u"]}
        )


async def test_a_body_over_the_limit_is_refused_also_when_it_was_compressed(tmp_path: Path) -> None:
    async with serving(tmp_path, max_body_bytes=10_000) as server:
        for data, headers in [
            (b"x" * 10_001, {}),
            (b"x" * 1_000_000, {}),
            (gzip.compress(b"x" * 3_000_000), {"Content-Encoding": "gzip"}),
        ]:
            answer = await server.problem(
                "POST", "/scores", 413, "too_large", data=data, headers=headers
            )
            assert "10000 bytes" in answer.body["detail"]
        compressed = gzip.compress(_with())
        headers = {"Content-Encoding": "gzip"}
        answer = await server.ask("POST", "/scores", data=compressed, headers=headers)
        assert answer.body["accepted"] == 2


async def test_a_body_that_does_not_arrive_whole_is_the_clients_mistake(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        broken = bytearray(gzip.compress(_with() + b" " * 1000))
        broken[20] ^= 0xFF
        headers = {"Content-Encoding": "gzip"}
        answer = await server.ask("POST", "/scores", data=bytes(broken), headers=headers)
        assert answer.status == 400
        host, port = server.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /scores HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
        await writer.drain()
        await _until(lambda: server.service.requests_in_flight == 1)
        before = server.service.counters.requests_refused
        writer.close()
        await writer.wait_closed()
        await _until(lambda: server.service.requests_in_flight == 0)
        assert server.service.counters.requests_refused == before + 1


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise TimeoutError


async def test_a_client_that_hangs_up_is_not_logged_as_a_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(tmp_path) as server:
        host, port = server.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /scores HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.05)
    assert "request failed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "user_ids"), [("max_live_events", ["a"] * 3), ("max_active_users", ["a", "b", "c"])]
)
async def test_what_does_not_fit_is_refused_whole_and_may_be_sent_again(
    tmp_path: Path, setting: str, user_ids: list[str]
) -> None:
    limit: dict[str, Any] = {setting: 2}
    async with serving(tmp_path, **limit) as server:
        body = {"batches": [batch("k", user_ids[:1], [1]), batch("l", user_ids[1:], [1, 1])]}
        answer = await server.problem("POST", "/scores", 503, "capacity", json=body)
        assert setting in answer.body["detail"]
        assert (await server.get("/stats"))["live_events"] == 0
        assert (await server.record(batch("l", user_ids[1:], [1, 1])))["accepted"] == 2


@pytest.mark.parametrize("setting", ["max_live_events", "max_active_users", "max_batch_keys"])
async def test_room_comes_back_as_the_window_moves(tmp_path: Path, setting: str) -> None:
    limit: dict[str, Any] = {setting: 1}
    async with serving(tmp_path, **limit) as server:
        await server.record(batch("first", ["a"], [1]))
        later = time.time() + 1000
        body = {"batches": [batch("second", ["b"], [1])]}
        await server.problem("POST", "/scores", 503, "capacity", json=body)
        server.set_clock(later)
        assert (await server.record(batch("third", ["b"], [1], [later])))["accepted"] == 1


async def test_keys_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, max_batch_keys=2) as server:
        body = {"batches": [batch(str(number), ["u"], [1]) for number in range(3)]}
        answer = await server.problem("POST", "/scores", 503, "capacity", json=body)
        assert "max_batch_keys" in answer.body["detail"]
        assert (await server.get("/stats"))["live_events"] == 0


async def test_more_batches_than_the_limit_are_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, max_batches=2) as server:
        three = {"batches": [batch(str(number), [], []) for number in range(3)]}
        answer = await server.problem("POST", "/scores", 413, "too_large", json=three)
        assert "3 batches" in answer.body["detail"]
        assert (await server.get("/stats"))["batch_keys"] == 0


async def test_under_the_event_clock_a_key_lives_while_its_events_do(tmp_path: Path) -> None:
    async with serving(tmp_path, clock="event") as server:
        now = time.time()
        first = batch("first", ["ann"], [0.5], [now])
        await server.record(first)
        server.set_clock(now + 10_000)  # the replay pauses: its own time stands still
        assert (await server.record(first))["duplicates"] == 1
        assert (await server.get("/users/ann/median"))["count"] == 1
        await server.record(batch("later", ["bob"], [0.5], [now + 5_000]))
        assert (await server.get("/stats"))["batch_keys"] == 2  # one user alone does not move it
        await server.record(batch("confirmed", ["eve"], [0.5], [now + 5_000]))
        await server.record(batch("last", ["bob"], [0.5], [now + 5_000]))
        assert (await server.get("/stats"))["batch_keys"] == 3


def _packed(**changes: Any) -> bytes:
    column = np.array([1.0], "<f8").tobytes()
    one = {"batches": [{"key": "k", "events": 1}], "user_id": ["ann"]}
    return msgspec.msgpack.encode(one | {"timestamp": column, "score": column} | changes)


async def test_messagepack_says_the_same_as_json(tmp_path: Path) -> None:
    now = time.time()
    body = _packed(
        batches=[
            {"key": "k", "events": 3, "skipped": 3},
            {"key": "nothing", "events": 0},
            {"key": "l", "events": 1},
        ],
        user_id=["ann", "bob", "ann", "ann"],
        timestamp=np.array([now, now - 999, now + 999, now - 1], "<f8").tobytes(),
        score=np.array([0.5, 5e-324, -0.0, -1e300], "<f8").tobytes(),
    )
    async with serving(tmp_path) as server:
        answer = await server.ask("POST", "/scores", data=body, headers=MSGPACK)
        assert answer.body["batches"] == [
            {"accepted": 1, "late": 1, "future": 1, "duplicate": False},
            {"accepted": 0, "late": 0, "future": 0, "duplicate": False},
            {"accepted": 1, "late": 0, "future": 0, "duplicate": False},
        ]
        stats = await server.get("/users/ann/stats")
        assert (stats["min"], stats["max"]) == (-1e300, 0.5)
        assert (await server.get("/stats"))["skipped"] == 3
        again = await server.ask("POST", "/scores", data=body, headers=MSGPACK)
        assert again.body["duplicates"] == 4


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "not a list of batches"),
        (b"{}", "not a list of batches"),
        (_packed()[:-1], "not a list of batches"),
        (_packed(score=b"1234567"), "score has 7 bytes"),
        (_packed(score=bytes(16)), "one length, not 1, 1 and 2"),
        (_packed(score=np.array([np.nan]).tobytes()), "score[0] is not a finite number"),
        (_packed(timestamp=np.array([-np.inf]).tobytes()), "timestamp[0] is not a finite"),
        (_packed(timestamp=[1.0]), "not a list of batches"),
        (_packed(user_id=[""]), "user_id[0]"),
        (_packed(user_id=["u" * 257]), "user_id[0]"),
        (_packed(batches=[]), "0 events together, the columns 1"),
        (_packed(batches=[{"key": "k", "events": 2}]), "2 events together, the columns 1"),
        (_packed(batches=[{"key": "k", "events": -1}]), "not a list of batches"),
        (_packed(batches=[{"key": "", "events": 1}]), "batches[0].key"),
    ],
)
async def test_broken_messagepack_is_refused_with_the_place(
    tmp_path: Path, body: bytes, detail: str
) -> None:
    async with serving(tmp_path) as server:
        answer = await server.problem(
            "POST", "/scores", 400, "invalid_request", data=body, headers=MSGPACK
        )
        assert detail in answer.body["detail"]
        assert (await server.get("/stats"))["live_events"] == 0


async def test_a_slow_upload_is_not_counted_as_receiving(tmp_path: Path) -> None:
    pause_seconds = 0.5

    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"batches": '
        await asyncio.sleep(pause_seconds)
        yield b"[]}"

    async with serving(tmp_path) as server:
        answer = await server.ask("POST", "/scores", data=slowly(), headers=JSON)
        assert answer.status == 200
        receive = (await server.get("/stats"))["stages"]["receive"]
        assert receive["count"] == 1
        assert receive["seconds_total"] < pause_seconds


async def test_the_stages_of_a_request_that_is_refused_are_not_counted(tmp_path: Path) -> None:
    async with serving(tmp_path, max_batch_keys=1) as server:
        batches = [batch("k", ["a"], [1]), batch("l", ["a"], [1])]
        body = {"batches": batches, "stages": {"decode": [0.5]}}
        assert (await server.ask("POST", "/scores", json=body)).status >= 400
        assert (await server.get("/stats"))["stages"]["decode"]["count"] == 0
        await server.post("/scores", {**body, "batches": batches[:1]})
        assert (await server.get("/stats"))["stages"]["decode"]["count"] == 1


async def test_stages_are_counted_here_and_as_the_producer_tells(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        body = {"batches": [batch("k", ["a"], [1])], "stages": {"decode": [0.5, 0.25]}}
        await server.post("/scores", body)
        await server.record(batch("l", ["a"], [1]))
        stages = (await server.get("/stats"))["stages"]
        assert stages["decode"] == {"count": 2, "seconds_total": 0.75, "mean_seconds": 0.375}
        assert stages["score"] == {"count": 0, "seconds_total": 0.0, "mean_seconds": 0.0}
        for stage in ("receive", "journal", "apply"):
            assert stages[stage]["count"] == 2
            assert 0 < stages[stage]["mean_seconds"] < 5
        metrics = (await server.ask("GET", "/metrics")).text
        assert 'medianserve_stage_seconds_count{stage="decode",tier="handler"} 2.0' in metrics
        assert 'medianserve_stage_seconds_count{stage="journal",tier="state"} 2.0' in metrics
        for wrong in ({"nap": [1]}, {"decode": [-1]}, {"decode": 1}, {"decode": [0.1] * 1001}):
            await server.problem(
                "POST", "/scores", 400, "invalid_request", json={"batches": [], "stages": wrong}
            )
