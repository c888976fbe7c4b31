"""What is shown as live is in the window; the middle of all medians; scores of a span."""

import asyncio
import re
from pathlib import Path

import numpy as np
import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from state_service.app_keys import EVERYBODY
from state_service.census import Census, Headcount
from state_service.ranking import By, Ranking
from tests.state_service.state_support import Server, batch, serving

NOW = 1_700_000_000.0


async def _two_ages(server: Server) -> None:
    """Record 200 scores of 50 users, and 400 s later 30 scores of ten others."""
    server.set_clock(NOW)
    old = [f"old {number % 50}" for number in range(200)]
    await server.record(batch("old", old, [0.5] * 200, [NOW] * 200))
    server.set_clock(NOW + 400)
    new = [f"new {number % 10}" for number in range(30)]
    await server.record(batch("new", new, [n / 32 for n in range(30)], [NOW + 400] * 30))


async def test_what_is_shown_as_live_is_in_the_window(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await _two_ages(server)
        stats = await server.get("/stats")
        assert (stats["users"], stats["live_events"]) == (10, 30)
        assert (stats["held_users"], stats["held_events"]) == (60, 230)
        assert stats["counted_seconds_ago"] == 0
        metrics = (await server.ask("GET", "/metrics")).text
        samples = {
            sample.name: sample.value
            for family in text_string_to_metric_families(metrics)
            for sample in family.samples
        }
        assert samples["medianserve_active_users"] == 10
        assert samples["medianserve_live_events"] == 30
        assert samples["medianserve_held_users"] == 60
        assert samples["medianserve_held_events"] == 230
        page = re.sub(r"<[^>]+>", " ", (await server.ask("GET", "/overview")).text)
        assert re.search(r"Users\s+10\s", page)
        assert re.search(r"Live events\s+30\s", page)
        server.set_clock(NOW + 701)
        stats = await server.get("/stats")
        assert (stats["users"], stats["live_events"]) == (0, 0)


async def test_the_median_of_all_medians_says_of_how_many_users_it_is(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        empty = (await server.get("/stats"))["median_of_medians"]
        assert (empty["median"], empty["users"]) == (None, 0)
        await _two_ages(server)
        middle = (await server.get("/stats"))["median_of_medians"]
        medians = [np.median([(n + 10 * k) / 32 for k in range(3)]) for n in range(10)]
        assert middle == {"median": np.median(medians), "users": 10, "seconds_ago": 0}


async def test_a_count_that_takes_long_is_not_waited_for_and_tells_its_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as server:
        await _two_ages(server)
        may_end, asked = asyncio.Event(), 0
        everybody = server.app[EVERYBODY]
        ranking = everybody.ranking

        async def slow_ranking(by: By) -> Ranking:
            nonlocal asked
            asked += 1
            await may_end.wait()
            return await ranking(by)

        monkeypatch.setattr(everybody, "ranking", slow_ranking)
        census = Census(server.service, everybody)
        at_once = await asyncio.gather(*(census.headcount() for _ in range(2)))
        assert at_once == [Headcount()] * 2
        for _ in range(3):  # nobody waits, and only one counts
            assert await census.headcount() == Headcount()
        assert asked == 1
        may_end.set()
        for _ in range(6_000):
            if (found := await census.headcount()).time is not None:
                break
            await asyncio.sleep(0.01)
        assert (found.users, found.live_events) == (10, 30)
        server.set_clock(NOW + 500)
        assert await census.headcount() == found  # it rests
        assert census.age_seconds(found) == 100


async def test_a_count_that_fails_is_logged_also_when_nobody_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as server:
        may_end = asyncio.Event()

        async def fail(_by: By) -> Ranking:
            await may_end.wait()
            raise RuntimeError("no ranking")

        monkeypatch.setattr(server.app[EVERYBODY], "ranking", fail)
        census = Census(server.service, server.app[EVERYBODY])
        with structlog.testing.capture_logs() as logs:
            assert await census.headcount() == Headcount()
            may_end.set()
            for _ in range(6_000):
                if any("was not counted" in entry["event"] for entry in logs):
                    break
                await asyncio.sleep(0.01)
            else:
                raise TimeoutError
        with pytest.raises(RuntimeError, match="no ranking"):
            await Census(server.service, server.app[EVERYBODY]).headcount()


async def test_scores_of_a_span_are_listed_as_far_back_as_they_are_kept(tmp_path: Path) -> None:
    async with serving(tmp_path, window_seconds=100.0, history_seconds=200.0) as server:
        for age in range(290, -1, -10):
            server.set_clock(NOW - age)
            await server.record(batch(f"k{age}", ["u"], [age], [NOW - age]))
        path = "/users/u/scores"
        assert (await server.get(path))["count"] == 11
        for query, ages in (
            (f"since={NOW - 290}", range(0, 291, 10)),
            (f"since={NOW - 200}&until={NOW - 150}", range(150, 201, 10)),
            (f"until={NOW - 250}", range(250, 291, 10)),
            (f"since={NOW + 1}", range(0)),
        ):
            body = await server.get(f"{path}?{query}")
            assert [item["score"] for item in body["scores"]] == list(ages), query
            assert (body["count"], body["window_seconds"]) == (len(ages), None)
        body = await server.get(f"{path}?since={NOW - 200}&limit=2")
        assert (body["count"], len(body["scores"]), body["since"]) == (21, 2, NOW - 200)
        for wrong, code, says in (
            (f"since={NOW - 301}", "at_not_retained", r"ask for (since=\d+)"),
            ("since=0", "at_not_retained", r"ask for (since=\d+)"),
            (f"until={NOW - 301}", "at_not_retained", r"ask for (until=\d+)"),
            ("until=0", "at_not_retained", r"ask for (until=\d+)"),
            (f"since={NOW * 1000:.0f}", "invalid_request", r"ask for (since=[\d.]+)"),
            (f"until={NOW * 1000:.0f}", "invalid_request", r"ask for (until=[\d.]+)"),
        ):
            answer = await server.problem("GET", f"{path}?{wrong}", 400, code)
            again = re.search(says, answer.body["detail"])
            assert again, answer.text
            await server.get(f"{path}?{again[1]}")
        for wrong in (f"since={NOW}&until={NOW - 1}", f"since={NOW}&window=5", "since=x"):
            await server.problem("GET", f"{path}?{wrong}", 400, "invalid_request")
