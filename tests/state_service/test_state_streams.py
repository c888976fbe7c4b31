"""Streams of server-sent events: shared, bounded, and no hindrance to anybody."""

import asyncio
import base64
import hashlib
import re
import signal
import socket
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from state_service.routes_dashboard import TICKER, VIEWERS
from state_service.viewers import Watched
from tests.state_service.state_support import Server, batch, launched, serving


def events_of(text: str) -> list[tuple[str, Any]]:
    """Return the (name, data) of a stream's events."""
    found = []
    for part in text.strip().split("\n\n"):
        name, data = part.split("\n")
        found.append(
            (name.removeprefix("event: "), msgspec.json.decode(data.removeprefix("data: ")))
        )
    return found


async def stream(server: Server, query: str) -> list[tuple[str, Any]]:
    answer = await server.ask("GET", f"/events?{query}")
    assert answer.status == 200, answer.text
    assert answer.headers["Content-Type"] == "text/event-stream"
    return events_of(answer.text)


async def eventually(condition: Any) -> None:
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


async def test_the_service_s_stream_is_its_history_and_then_its_numbers(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.record(batch("a", ["u"] * 3, [1, 2, 3]))
        server.app[TICKER].period_seconds = 0.01
        names, bodies = zip(*await stream(server, "limit=3"), strict=True)
        assert names == ("history", "overview", "overview", "overview")
        stats = await server.get("/stats")
        assert set(bodies[1]["stats"]) == set(stats)
        assert bodies[-1]["stats"]["events_processed"] == stats["events_processed"] == 3
        assert len(server.app[VIEWERS]) == 0


async def test_a_user_s_stream_sees_what_has_just_been_answered(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.record(batch("a", ["u"] * 3, [1, 2, 30]))
        ((name, view),) = await stream(server, "user_id=u&limit=1")
        assert name == "user"
        assert (view["count"], view["median"], view["min"], view["max"]) == (3, 2, 1, 30)
        assert sorted(view["scores"]) == [1, 2, 30]
        stats = await server.get("/users/u/stats?q=0.05,0.95")
        band = [quantile["value"] for quantile in stats["quantiles"]]
        assert [view["low"], view["high"]] == band


async def test_the_trail_knows_nothing_of_what_came_later(tmp_path: Path) -> None:
    now = time.time()
    async with serving(tmp_path, window_seconds=100.0, history_seconds=50.0) as server:
        server.set_clock(now)
        ages = range(99)
        await server.record(
            batch("a", ["u"] * 99, [age**2 for age in ages], [now - a for a in ages])
        )
        ((_, view),) = await stream(server, "user_id=u&limit=1&window=20")
        trail = view["trail"]
        assert trail[0]["time"] == pytest.approx(now - 100, abs=2)
        assert [point["time"] for point in trail] == sorted(point["time"] for point in trail)
        for point in trail:
            then = [age**2 for age in ages if point["time"] - 20 <= now - age <= point["time"]]
            assert point["count"] == len(then)
            assert point["median"] == (np.median(then) if then else None)
            assert not then or point["low"] == pytest.approx(np.quantile(then, 0.05))
        assert trail[-1]["count"] > 15


@pytest.mark.parametrize(
    ("left_out", "words"),
    [
        (batch("a", [], [], skipped=13_721), "13,721 of 13,721 events"),
        (batch("a", ["u"] * 600, [1] * 600, [time.time() * 1000] * 600), "600 ahead of the clock"),
        (batch("a", ["u"] * 600, [1] * 600, [time.time() - 4000] * 600), "600 older than the wind"),
    ],
    ids=["malformed", "milliseconds", "late"],
)
async def test_the_page_turns_red_when_events_are_in_no_median(
    tmp_path: Path, left_out: dict[str, object], words: str
) -> None:
    async with serving(tmp_path) as server:
        await server.record(left_out)
        ((_, _), (_, overview)) = await stream(server, "limit=1")
        assert overview["conditions"][0]["level"] == "bad"
        assert words in overview["conditions"][0]["sentence"]
        page = (await server.ask("GET", "/overview")).text
        assert '<p class="condition bad">' in page
        assert words in page
        assert "All is well" not in page


async def test_all_viewers_of_a_subject_get_the_same_message_made_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        server.app[TICKER].period_seconds = 0.05
        answers = await asyncio.gather(*[stream(server, "limit=3") for _ in range(20)])
        last = [answer[-1][1]["time"] for answer in answers]
        assert len(set(last)) < 10


async def test_beyond_the_limit_viewers_are_refused_and_their_room_comes_back(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, max_viewers=2) as server:
        urls = (f"{server.url}/events", f"{server.url}/events?user_id=u")
        open_streams = [await server.session.get(url) for url in urls]
        await server.problem("GET", "/events?limit=1", 503, "busy")
        assert server.service.counters.limit_hits["max_viewers"] == 1
        for answer in open_streams:
            answer.close()
        server.app[TICKER].period_seconds = 0.01
        await eventually(lambda: len(server.app[VIEWERS]) == 0)
        assert len(await stream(server, "limit=1")) == 2


async def test_a_viewer_that_does_not_read_is_cut_off_and_holds_up_nobody(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.record(batch("a", ["u"] * 900, [n / 7 for n in range(900)]))
        host, port = server.url.removeprefix("http://").split(":")
        reader = socket.create_connection((host, int(port)))
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.sendall(b"GET /events?user_id=u HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await eventually(lambda: len(server.app[VIEWERS]) == 1)
        server.app[TICKER].period_seconds = 0.002
        await eventually(lambda: len(server.app[VIEWERS]) == 0)
        assert len(await stream(server, "user_id=u&limit=3")) == 3
        reader.close()


@pytest.mark.parametrize("reads", [True, False])
async def test_open_streams_end_when_the_service_stops(tmp_path: Path, *, reads: bool) -> None:
    async with serving(tmp_path) as server:
        await server.record(batch("a", ["u"] * 900, [n / 7 for n in range(900)]))
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as reader:
            reader.sendall(b"GET /events?user_id=u HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await eventually(lambda: len(server.app[VIEWERS]) == 1)
            if not reads:  # as a tab that has been put to sleep
                server.app[VIEWERS].publish(Watched("u", None), bytes(1 << 24))
                await asyncio.sleep(0.1)
            server.app[TICKER].stop()
            await eventually(lambda: len(server.app[VIEWERS]) == 0)
            await server.problem("GET", "/events", 503, "stopping")


async def test_sigterm_ends_streams_and_the_process(tmp_path: Path) -> None:
    async with launched(tmp_path) as process:
        url = f"{process.url}/events"
        answers = [await process.session.get(url) for _ in range(3)]
        for answer in answers:
            assert await answer.content.readline() == b"event: history\n"
        status, _ = await process.stop(signal.SIGTERM)
        assert status == 0
        for answer in answers:
            assert b"event: overview" in await answer.read()  # ended, and not cut off


async def test_while_restoring_the_service_can_be_watched_and_no_user(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        server.service.phase = "restoring"
        ((_, _), (_, overview)) = await stream(server, "limit=1")
        assert overview["stats"]["phase"] == "restoring"
        await server.problem("GET", "/events?user_id=u", 503, "restoring")
        server.service.phase = "ready"


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "user_id=", "window=5", "user_id=u&window=0", "user=u"]
)
async def test_a_question_that_cannot_be_understood_is_refused(tmp_path: Path, query: str) -> None:
    async with serving(tmp_path) as server:
        await server.problem("GET", f"/events?{query}", 400, "invalid_request")


async def test_a_fault_of_the_page_ends_neither_the_service_nor_the_ticks(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        ticker = server.app[TICKER]
        ticker.period_seconds = 0.01
        counters, server.service.counters = server.service.counters, None  # type: ignore[assignment]
        await asyncio.sleep(0.1)
        server.service.counters = counters
        assert len(await stream(server, "limit=2")) == 3
        await server.get("/readyz")


async def test_the_page_s_files_are_kept_by_browsers_and_asked_about(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for path in ("/", "/dashboard/main.js", "/dashboard/uplot.iife.min.js"):
            first = await server.ask("GET", path)
            assert first.headers["Cache-Control"] == "no-cache"
            assert "default-src 'none'" in first.headers["Content-Security-Policy"]
            headers = {"If-None-Match": first.headers["ETag"]}
            assert (await server.ask("GET", path, headers=headers)).status == 304
        await server.problem("GET", "/dashboard/../app.py", 404, "not_found")
        await server.problem("GET", "/dashboard/%2e%2e/app.py", 404, "not_found")


async def test_users_are_listed_page_by_page(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        user_ids = [f"u{n}" for n in range(25) for _ in range(n + 1)]
        await server.record(batch("a", user_ids, [float(u[1:]) for u in user_ids]))
        listed: list[str] = []
        query = "/users?sort=median&order=asc&limit=10&min_count=3"
        pages = 0
        while query:
            pages += 1
            body = await server.get(query)
            assert body["users"] == 25
            listed += [item["user_id"] for item in body["items"]]
            token = body["next_page_token"]
            query = token and f"/users?limit=10&page_token={token}"
        assert pages == 3
        assert listed == [f"u{n}" for n in range(2, 25)]
        for item in (await server.get("/users"))["items"]:
            median = await server.get(f"/users/{item['user_id']}/median")
            assert item == {name: median[name] for name in item}


async def test_a_list_includes_what_has_just_been_answered_however_many_ask(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server:
        for number in range(20):
            await server.record(batch(f"k{number}", [f"u{number}"], [0.5]))
            bodies = await asyncio.gather(*[server.get("/users") for _ in range(10)])
            assert {body["users"] for body in bodies} == {number + 1}


async def test_the_scores_of_a_window_are_listed_newest_first(tmp_path: Path) -> None:
    now = time.time()
    async with serving(tmp_path) as server:
        server.set_clock(now)
        await server.record(batch("a", ["u"] * 4, [1, 2, 3, 4], [now - 3, now, now - 50, now - 9]))
        body = await server.get("/users/u/scores?limit=2&window=20")
        assert (body["count"], body["window_seconds"]) == (3, 20)
        assert body["scores"] == [
            {"timestamp": now, "score": 2},
            {"timestamp": now - 3, "score": 1},
        ]
        every = await server.get("/users/u/scores")
        assert [each["score"] for each in every["scores"]] == [2, 1, 4, 3]
        median = await server.get("/users/u/median")
        assert every["newest_timestamp"] == median["newest_timestamp"]
        assert (await server.get("/users/nobody/scores"))["scores"] == []
        for query in ("limit=0", "limit=1&limit=2", "windows=5", "window=0"):
            await server.problem("GET", f"/users/u/scores?{query}", 400, "invalid_request")


async def test_the_page_names_the_hashes_of_the_charts_files_it_loads(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        page = (await server.ask("GET", "/")).text
        named = dict(re.findall(r'"dashboard/(uplot[^"]+)" integrity="sha256-([^"]+)"', page))
        assert set(named) == {"uplot.iife.min.js", "uplot.min.css"}
        for name, digest in named.items():
            async with server.session.get(f"{server.url}/dashboard/{name}") as answer:
                body = await answer.read()
            assert base64.b64encode(hashlib.sha256(body).digest()).decode() == digest
            if name.endswith(".js"):
                assert b"(v1.6.31)" in body[:100]
        assert "uPlot 1.6.31" in page


async def test_the_plain_page_keeps_an_id_apart_from_its_text_and_shows_a_blank_one(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server:
        await server.record(batch("k", ["\u05d0\u05d1", "  ", " "], [1, 2, 3]))
        page = (await server.ask("GET", "/overview?user_id=%D7%90%D7%91")).text
        assert "<caption>User <bdi>\u05d0\u05d1</bdi></caption>" in page
        assert "<bdi>(blank, 2 characters)</bdi>" in page
        assert "<bdi>(blank, 1 character)</bdi>" in page


async def test_more_events_than_a_stream_has_are_refused_and_are_no_limit_of_lists(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server:
        await server.problem("GET", "/events?limit=1000001", 400, "invalid_request")
        assert (await server.get("/stats"))["limit_hits"]["max_listed"] == 0


async def test_a_proxy_is_told_not_to_hold_events_back(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        answer = await server.ask("GET", "/events?limit=1")
        assert answer.headers["X-Accel-Buffering"] == "no"
