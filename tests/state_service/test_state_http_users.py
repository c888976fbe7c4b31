"""Questions about users: medians, statistics, and what is refused."""

import re
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.state_service.state_support import Server, batch, serving

NOW = 1_700_000_000.0
AWKWARD = [
    "a/b",
    "a{b}",
    "100%",
    "%41",
    "x\ny",
    "ünï/cödé",
    "a b",
    "+",
    "?q=1",
    "#",
    "a;b",
    "\N{GRINNING FACE}",
    "'\"<",
]


async def _five_scores(server: Server) -> None:
    """Give alice a score at NOW - 4, … NOW - 0."""
    server.set_clock(NOW)
    timestamps = [NOW - age for age in range(5)]
    await server.record(batch("k", ["alice"] * 5, [1, 2, 4, 8, 16], timestamps))


async def test_the_median_of_a_user(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await _five_scores(server)
        assert await server.get("/users/alice/median") == {
            "user_id": "alice",
            "median": 4,
            "count": 5,
            "window_seconds": 300,
            "newest_timestamp": NOW,
        }


async def test_an_unknown_user_and_an_idle_one_answer_alike(tmp_path: Path) -> None:
    empty = {"median": None, "count": 0, "window_seconds": 300, "newest_timestamp": None}
    async with serving(tmp_path) as server:
        await _five_scores(server)
        assert await server.get("/users/bob/median") == {"user_id": "bob", **empty}
        server.set_clock(NOW + 301)
        assert await server.get("/users/alice/median") == {"user_id": "alice", **empty}
        stats = await server.get("/users/alice/stats?q=0.5")
        assert stats["quantiles"] == [{"q": 0.5, "value": None}]
        assert [stats[name] for name in ("count", "min", "max", "mean")] == [0, None, None, None]


async def test_a_shorter_window_and_another_moment(tmp_path: Path) -> None:
    async with serving(tmp_path, window_seconds=100.0, max_future_seconds=1.0) as server:
        await _five_scores(server)
        for query, count in [
            ("window=2", 3),
            ("window=0.5", 1),
            ("window=100", 5),
            (f"at={NOW - 2}", 3),  # of a moment, what is newer is not counted
            (f"window=1&at={NOW - 3}", 2),
            (f"at={NOW + 98}", 3),
            (f"at={NOW + 1000}", 0),
        ]:
            body = await server.get(f"/users/alice/median?{query}")
            assert body["count"] == count, query
            stats = await server.get(f"/users/alice/stats?{query}")
            assert (stats["count"], stats["median"]) == (count, body["median"])
            asked = dict(part.split("=") for part in query.split("&"))
            question = {name: float(value) for name, value in asked.items()}
            (item,) = (await server.post("/medians", {"user_ids": ["alice"]} | question))["items"]
            assert item == body
        assert (await server.get("/users/alice/median?window=2"))["window_seconds"] == 2


async def test_the_statistics_of_a_user(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await _five_scores(server)
        assert await server.get("/users/alice/stats?q=0,0.25,0.9,1") == {
            "user_id": "alice",
            "count": 5,
            "min": 1,
            "max": 16,
            "mean": 6.2,
            "median": 4,
            "quantiles": [
                {"q": 0, "value": 1},
                {"q": 0.25, "value": 2},
                {"q": 0.9, "value": pytest.approx(12.8)},
                {"q": 1, "value": 16},
            ],
            "window_seconds": 300,
            "newest_timestamp": NOW,
        }
        assert (await server.get("/users/alice/stats"))["quantiles"] == []


async def test_many_users_are_answered_in_the_order_asked_repeats_and_all(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await _five_scores(server)
        asked = ["alice", "nobody", "alice"]
        items = (await server.post("/medians", {"user_ids": asked}))["items"]
        assert [item["user_id"] for item in items] == asked
        assert [item["median"] for item in items] == [4, None, 4]
        assert items[0] == await server.get("/users/alice/median")
        assert items[1] == await server.get("/users/nobody/median")
        assert await server.post("/medians", {"user_ids": []}) == {"items": []}


async def test_any_text_can_be_a_users_name(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        names = [*AWKWARD, ".", ".."]
        await server.record(batch("k", names, range(len(names))))
        for number, name in enumerate(names):
            for kind in ("median", "stats"):
                body = await server.get(f"/users/{quote(name, safe='')}/{kind}")
                assert (body["user_id"], body["median"]) == (name, number)
        items = (await server.post("/medians", {"user_ids": names}))["items"]
        assert [item["median"] for item in items] == list(range(len(names)))


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("windows=5", "'windows'"),
        ("window=5&Q=1", "'Q'"),
        ("q=0.5", "'q'"),
        ("window=0", "window"),
        ("window=-1", "window"),
        ("window=300.1", "at most 300"),
        ("window=nan", "window"),
        ("window=inf", "window"),
        ("window=", "window"),
        ("window=5s", "window"),
        ("at=now", "at"),
        ("at=nan", "at"),
        ("at=-inf", "at"),
        ("window=10&window=20", "once"),
    ],
)
async def test_a_bad_parameter_is_refused_by_name(tmp_path: Path, query: str, named: str) -> None:
    async with serving(tmp_path) as server:
        path = f"/users/u/median?{query}"
        answer = await server.problem("GET", path, 400, "invalid_request")
        assert named in answer.body["detail"]


@pytest.mark.parametrize(
    "q", ["", "x", "nan", "-0.1", "1.1", "0.5,", "0.5;0.6", ",".join(["0"] * 101)]
)
async def test_bad_quantiles_are_refused(tmp_path: Path, q: str) -> None:
    async with serving(tmp_path) as server:
        answer = await server.problem("GET", f"/users/u/stats?q={q}", 400, "invalid_request")
        assert "q must be" in answer.body["detail"]
        await server.get(f"/users/u/stats?q={','.join(['0.5'] * 100)}")


async def test_a_question_about_a_time_no_longer_kept_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await _five_scores(server)
        await server.get(f"/users/alice/median?at={NOW - 300}")
        for kind in ("median", "stats"):
            for at in (NOW - 300.5, 0, -1):
                path = f"/users/alice/{kind}?at={at}"
                answer = await server.problem("GET", path, 400, "at_not_retained")
                assert "history_seconds" in answer.body["detail"]
                again = re.search(r"ask for (at=\d+) or later", answer.body["detail"])
                assert again, answer.text
                await server.get(f"/users/alice/{kind}?{again[1]}")
        body = {"user_ids": ["alice"], "at": -1e308}
        await server.problem("POST", "/medians", 400, "at_not_retained", json=body)


@pytest.mark.parametrize("scale", [1e3, 1e6, 1e9])
async def test_a_moment_in_finer_units_is_told_what_to_ask_for(
    tmp_path: Path, scale: float
) -> None:
    async with serving(tmp_path) as server:
        await _five_scores(server)
        path = f"/users/alice/median?at={NOW * scale:.0f}"
        answer = await server.problem("GET", path, 400, "invalid_request")
        again = re.search(r"ask for (at=[\d.]+)", answer.body["detail"])
        assert again, answer.text
        assert (await server.get(f"/users/alice/median?{again[1]}"))["count"] == 5
        body = {"user_ids": ["alice"], "at": NOW * scale}
        await server.problem("POST", "/medians", 400, "invalid_request", json=body)


async def test_a_user_id_that_no_event_can_have_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for path in ("u" * 257, quote("é" * 129)):
            for kind in ("median", "stats"):
                await server.problem("GET", f"/users/{path}/{kind}", 400, "invalid_request")
        await server.get(f"/users/{'u' * 256}/median")
        await server.problem("GET", "/users//median", 404, "not_found")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'["u"]',
        b"{}",
        b'{"user_ids": "u"}',
        b'{"user_ids": [1.5]}',
        b'{"user_ids": ["a"]}\n{"user_ids": ["b"]}',
        b'{"user_ids": [""]}',
        b'{"user_ids": ["u"], "window": 0}',
        b'{"user_ids": ["u"], "window": 301}',
        b'{"user_ids": ["u"], "window": "5"}',
        b'{"user_ids": ["u"], "windows": 5}',
        b'{"user_ids": ["u"], "at": NaN}',
        b'{"user_ids": ["u"], "at": 1e999}',
        b'{"user_ids": ["u"',
    ],
)
async def test_a_bad_question_for_medians_is_refused(tmp_path: Path, body: bytes) -> None:
    async with serving(tmp_path) as server:
        await server.problem("POST", "/medians", 400, "invalid_request", data=body)
        assert (await server.get("/stats"))["median_requests"] == 0


async def test_too_many_users_at_once_are_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, max_lookup_users=3) as server:
        answer = await server.problem(
            "POST", "/medians", 413, "too_large", json={"user_ids": ["u"] * 4}
        )
        assert "the limit is 3" in answer.body["detail"]
        assert len((await server.post("/medians", {"user_ids": ["u"] * 3}))["items"]) == 3


async def test_the_event_clock_replays_the_past(tmp_path: Path) -> None:
    async with serving(tmp_path, clock="event") as server:
        await server.record(batch("k", ["u", "u"], [1, 3], [1000, 1200]))
        assert (await server.get("/users/u/median"))["count"] == 2
        await server.record(batch("l", ["v"], [1], [1340]))
        assert (await server.get("/users/u/median"))["count"] == 1
        ahead = await server.record(batch("m", ["u"], [1], [time.time() + 999]))
        assert ahead["future"] == 1
        assert (await server.get("/users/u/median"))["count"] == 1
