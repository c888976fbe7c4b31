"""Questions about the service: statistics, health, metrics, documentation, and wrong addresses."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from state_service.advice import instead_of
from tests.state_service.state_support import Server, batch, serving

PROMISED = (
    "ingest_requests",
    "events_processed",
    "median_requests",
    "avg_ingest_latency_seconds",
)


async def _some_traffic(server: Server) -> None:
    now = time.time()
    first = batch("a", ["u", "v"], [1, 2], received_at=now - 3, skipped=4)
    await server.record(first, batch("b", ["u", "u"], [3, 4], [now - 999, now + 999]))
    await server.record(first)
    await server.record(batch("c", ["w"], [1], received_at=now - 1))
    await server.get("/users/u/median")
    await server.get("/users/u/stats")
    await server.post("/medians", {"user_ids": ["u", "v", "w"]})
    await server.problem("GET", "/users/u/median?typo=1", 400, "invalid_request")


async def test_the_four_promised_numbers_mean_what_they_say(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        before = await server.get("/stats")
        assert [before[name] for name in PROMISED] == [0, 0, 0, 0]
        await _some_traffic(server)
        stats = await server.get("/stats")
        # Three requests of clients were handed in; the fourth was one of them again.
        assert stats["ingest_requests"] == 3
        # Their events, each once, late and future ones included.
        assert stats["events_processed"] == 5
        # Questions that were answered: a median and a POST /medians, however many users.
        assert stats["median_requests"] == 2
        # The mean over those that said when the client's request came in: 3 s and 1 s ago.
        assert stats["avg_ingest_latency_seconds"] == pytest.approx(2, abs=0.5)


async def test_the_other_statistics_add_up(tmp_path: Path) -> None:
    async with serving(tmp_path, durability="snapshot") as server:
        await _some_traffic(server)
        stats = await server.get("/stats")
        assert stats["accepted"] + stats["late"] + stats["future"] == stats["events_processed"]
        names = ("accepted", "late", "future", "duplicates", "skipped")
        assert [stats[name] for name in names] == [3, 1, 1, 2, 4]
        assert (stats["users"], stats["live_events"], stats["batch_keys"]) == (3, 3, 3)
        assert (stats["phase"], stats["clock"], stats["window_seconds"]) == ("ready", "wall", 300)
        assert 0 <= stats["uptime_seconds"] < 60
        assert stats["snapshot"]["last_at"] is None
        assert "3600 seconds" in stats["durability"]["meaning"]
        assert await server.service.snapshot()
        snapshot = (await server.get("/stats"))["snapshot"]
        assert abs(snapshot["last_at"] - time.time()) < 60
        assert snapshot["database_bytes"] > 0


@pytest.mark.parametrize(
    "more", [{"skipped": 2**31}, {"skipped": -1}, {"received_at": -1}, {"received_at": 1e308}]
)
async def test_numbers_that_would_spoil_the_statistics_are_refused(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    async with serving(tmp_path) as server:
        body = {"batches": [batch("a", ["u"], [1], **more)]}
        await server.problem("POST", "/scores", 400, "invalid_request", json=body)


async def test_huge_numbers_from_a_producer_do_not_break_the_statistics(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        most: dict[str, Any] = {"skipped": 2**31 - 1, "received_at": 0}
        await server.record(*(batch(key, ["u"], [1], **most) for key in "abc"))
        stats = await server.get("/stats")
        assert stats["skipped"] == 3 * (2**31 - 1)
        assert stats["avg_ingest_latency_seconds"] == pytest.approx(time.time(), rel=0.01)
        assert (await server.ask("GET", "/metrics")).status == 200


async def test_a_producer_whose_clock_is_ahead_does_not_make_latency_negative(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server:
        await server.record(batch("a", ["u"], [1], received_at=time.time() + 100))
        assert (await server.get("/stats"))["avg_ingest_latency_seconds"] == 0


async def test_metrics_agree_with_the_statistics(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await _some_traffic(server)
        assert await server.service.snapshot()
        stats = await server.get("/stats")
        text = (await server.ask("GET", "/metrics")).text
        samples = {
            (sample.name.removeprefix("medianserve_"), *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        for outcome in ("accepted", "late", "future", "duplicates", "skipped", "forgotten"):
            assert samples["events_total", outcome] == stats[outcome]
        for metric, name in [
            ("ingest_requests_total", "ingest_requests"),
            ("median_requests_total", "median_requests"),
            ("requests_refused_total", "requests_refused"),
            ("active_users", "users"),
            ("live_events", "live_events"),
            ("batch_keys", "batch_keys"),
        ]:
            assert samples[(metric,)] == stats[name]
        mean = samples[("ingest_latency_seconds_sum",)] / samples[("ingest_latency_seconds_count",)]
        assert mean == pytest.approx(stats["avg_ingest_latency_seconds"])
        assert samples[("ready",)] == 1
        assert samples[("snapshot_failures_total",)] == 0
        assert samples[("snapshot_timestamp_seconds",)] == stats["snapshot"]["last_at"]
        assert samples[("database_bytes",)] > 0
        headers = {"Accept": "application/openmetrics-text; version=1.0.0"}
        text = (await server.ask("GET", "/metrics", headers=headers)).text
        families = openmetrics_parser.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        assert list(families)


async def test_no_metric_names_a_user(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.record(batch("k", ["very-secret"], [1]))
        assert "very-secret" not in (await server.ask("GET", "/metrics")).text


async def test_until_it_has_restored_it_says_so_and_lives(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for number in range(3):
            await server.record(batch(str(number), ["u"], [number]))
            await server.service.snapshot()
    async with serving(tmp_path) as server:
        server.service.phase = "restoring"  # again: it is over too soon to be looked at
        server.service.restored.segments_done = 1
        answer = await server.problem("GET", "/readyz", 503, "restoring")
        assert answer.body["detail"] == "restoring: 1 of 3 segments"
        assert answer.headers["Retry-After"] == "1"
        assert await server.get("/healthz") == {"status": "alive"}
        assert (await server.get("/stats"))["phase"] == "restoring"
        assert "medianserve_ready 0.0" in (await server.ask("GET", "/metrics")).text
        for method, path in [
            ("POST", "/scores"),
            ("POST", "/medians"),
            ("GET", "/users/u/median"),
            ("GET", "/users/u/stats"),
        ]:
            await server.problem(method, path, 503, "restoring")
        server.service.phase = "ready"
        assert await server.get("/readyz") == {"status": "ready"}
        server.service.phase = "stopping"
        await server.problem("GET", "/readyz", 503, "stopping")
        assert await server.get("/healthz") == {"status": "alive"}


async def test_more_requests_at_once_than_the_limit_are_told_to_wait(tmp_path: Path) -> None:
    async with serving(tmp_path, max_requests_in_flight=2, retry_after_seconds=7) as server:
        finish = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b'{"batches":'
            await finish.wait()
            yield b"[]}"

        slow = [asyncio.create_task(server.ask("POST", "/scores", data=slowly())) for _ in "ab"]
        for _ in range(2000):
            if server.service.requests_in_flight == 2:
                break
            await asyncio.sleep(0.001)
        for path in ("/scores", "/medians"):
            answer = await server.problem("POST", path, 503, "busy")
            assert answer.headers["Retry-After"] == "7"
        await server.get("/users/u/median")  # reads have no body to wait for
        finish.set()
        assert [answer.status for answer in await asyncio.gather(*slow)] == [200, 200]
        assert server.service.requests_in_flight == 0
        await server.record(batch("k", ["u"], [1]))


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/scores", "POST"),
        ("DELETE", "/medians", "POST"),
        ("POST", "/stats", "GET,HEAD"),
        ("PUT", "/users/u/median", "GET,HEAD"),
        ("GET", "/users/u", "DELETE"),
        ("GET", "/snapshot", "POST"),
    ],
)
async def test_another_method_is_refused_and_the_right_one_named(
    tmp_path: Path, method: str, path: str, allow: str
) -> None:
    async with serving(tmp_path) as server:
        answer = await server.problem(method, path, 405, "method_not_allowed")
        assert answer.headers["Allow"] == allow


INSTEAD = {
    "/score": "did you mean /scores?",
    "/user": "did you mean /users?",
    "/metric": "did you mean /metrics?",
    "/stats/": "write /stats",
    "//stats": "write /stats",
    "/users/alice/median/": "write /users/alice/median",
    "/users/a/b/median": "a slash in a user id is written %2F: /users/a%2Fb/median",
    "/users//median": "the user id is missing: /users/alice/median",
    "/users/alice/medians": "did you mean /users/alice/median?",
    "/health": "ask /healthz whether the process lives, /readyz whether it serves",
    "/ping": "ask /healthz whether the process lives, /readyz whether it serves",
    "/predictions/scorer/2": "here is POST /ingest",
    "/models": "at its own port (8081 by default)",
    "/swagger": "to read at /docs",
    "/dashboard/": "/docs lists what there is",
    "/" + "x" * 5000: "/docs lists what there is",
    "//": "write /",
}


async def test_an_address_without_anything_is_not_found(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for path, instead in INSTEAD.items():
            answer = await server.problem("GET", path, 404, "not_found")
            assert answer.body["detail"].endswith(instead), path


def test_what_is_no_path_is_told_where_to_look() -> None:
    assert instead_of("*") == "there is nothing at *: /docs lists what there is"
    assert instead_of("") == "there is nothing at : /docs lists what there is"


async def test_the_options_of_the_whole_server_are_no_address(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", URL(server.url).port)
        writer.write(b"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 404 "), answer
        assert b"/docs lists what there is" in answer


async def test_a_method_that_is_not_answered_is_told_which_is(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for method, path, instead in (
            ("POST", "/stats", "GET is"),
            ("GET", "/scores", 'POST is, with a body such as {"batches": […]}'),
            ("PUT", "/medians", 'POST is, with a body such as {"user_ids": ["alice"]}'),
            ("GET", "/users/a%2Fb", "ask GET /users/a%2Fb/median, /stats or /scores"),
        ):
            answer = await server.problem(method, path, 405, "method_not_allowed")
            assert answer.body["detail"].endswith(instead), path
            assert instead.startswith(answer.headers["Allow"].partition(",")[0]) or "ask" in instead


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag
        self.found += [value for name, value in attrs if name in ("src", "href") and value]


async def test_the_documentation_needs_no_other_host(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for address in ("/docs", "/docs/"):
            page = await server.ask("GET", address)
            assert page.status == 200
            assert page.headers["Content-Type"].startswith("text/html")
            assert not re.findall(r"(?:https?:)?//[a-z0-9]", page.text, re.IGNORECASE)
            # Swagger UI asks a public validator about the spec unless it is told not to.
            assert re.search(r"validatorUrl: null\b", page.text)
            links = _Links()
            links.feed(page.text)
            assert len(links.found) >= 5
            spec_urls = re.findall(r'url: "([^"]+)"', page.text)
            assert spec_urls
            for link in [*links.found, *spec_urls]:
                assert not urlsplit(link).netloc
                file = urljoin(address, link)
                async with server.session.get(server.url + file) as response:
                    assert response.status == 200, file
                    assert await response.read()
        spec = await server.get("/openapi.json")
        assert spec["openapi"].startswith("3.1")


async def test_the_documentations_files_are_the_only_ones_served(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for path in ("/docs/static/%2e%2e/core.py", "/docs/static/..%2fcore.py"):
            assert (await server.ask("GET", path)).status in (403, 404)
