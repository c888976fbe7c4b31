"""What /metrics tells of requests, limits, the journal and the process."""

import asyncio
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from state_service import __version__
from state_service.documentation import load_spec
from tests.state_service.state_support import REPOSITORY, Server, batch, serving

Samples = dict[tuple[str, ...], float]


async def _samples(server: Server) -> Samples:
    text = (await server.ask("GET", "/metrics")).text
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_requests_are_counted_by_the_template_of_their_route(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.record(batch("k", ["u"], [1]))
        await server.get("/users/very-secret/median")
        await server.get("/users/other/median")
        await server.problem("GET", "/users/u/median?typo=1", 400, "invalid_request")
        await server.problem("GET", "/no/such/very-secret", 404, "not_found")
        await server.problem("DELETE", "/scores", 405, "method_not_allowed")
        samples = await _samples(server)
        assert samples["medianserve_http_requests_total", "POST", "/scores", "200"] == 1
        median = "/users/{user_id}/median"
        assert samples["medianserve_http_requests_total", "GET", median, "200"] == 2
        assert samples["medianserve_http_requests_total", "GET", median, "400"] == 1
        assert samples["medianserve_http_requests_total", "GET", "none", "404"] == 1
        assert samples["medianserve_http_requests_total", "DELETE", "none", "405"] == 1
        assert samples["medianserve_http_request_seconds_count", "GET", median] == 3
        assert samples["medianserve_http_request_seconds_sum", "GET", median] > 0
        assert not any("very-secret" in label for labels in samples for label in labels)


async def test_methods_that_http_itself_does_not_know_are_one_series(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for method in ("PROPFIND", "MKCOL", "PURGE"):
            assert (await server.ask(method, "/stats")).status == 405
        samples = await _samples(server)
        assert samples["medianserve_http_requests_total", "other", "none", "405"] == 3


async def test_a_refused_request_is_counted_with_its_status(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        server.service.phase = "restoring"
        await server.problem("POST", "/scores", 503, "restoring", json={})
        samples = await _samples(server)
        assert samples["medianserve_http_requests_total", "POST", "/scores", "503"] == 1


async def test_what_is_bounded_stands_beside_its_bound(tmp_path: Path) -> None:
    limits: dict[str, Any] = {"max_live_events": 7, "max_active_users": 6, "max_batch_keys": 5}
    async with serving(tmp_path, max_requests_in_flight=4, window_seconds=60.0, **limits) as server:
        await server.record(batch("k", ["u", "v", "v"], [1, 2, 3]))
        samples = await _samples(server)
        for name, value, limit in (
            ("held_events", 3, 7),
            ("held_users", 2, 6),
            ("batch_keys", 1, 5),
            ("requests_in_flight", 0, 4),
            ("requests_waiting", 0, 4),
        ):
            assert samples[(f"medianserve_{name}",)] == value, name
            assert samples[(f"medianserve_{name}_limit",)] == limit, name
        assert samples[("medianserve_window_seconds",)] == 60


async def test_the_journal_s_size_is_what_the_file_holds(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        assert (await _samples(server))[("medianserve_journal_bytes",)] == 0
        for number in range(3):
            await server.record(batch(str(number), ["u"] * 10, [number] * 10))
        ((held,),) = await server.service.store.read("SELECT sum(length(payload)) FROM journal")
        assert (await _samples(server))[("medianserve_journal_bytes",)] == held > 0
        assert await server.service.snapshot()
        assert (await _samples(server))[("medianserve_journal_bytes",)] == 0
        await server.record(batch("last", ["u"], [1]))
    async with serving(tmp_path) as server:  # its last snapshot has covered that too
        assert (await _samples(server))[("medianserve_journal_bytes",)] == 0


async def test_a_database_that_goes_away_shows_as_failing_until_it_is_back(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.record(batch("k", ["u"], [1]))
        moved = tmp_path / "moved"
        (tmp_path / "state.db").rename(moved)
        body = {"batches": [batch("l", ["u"], [1])]}
        await server.problem("POST", "/scores", 503, "not_durable", json=body)
        assert not await server.service.snapshot()
        samples = await _samples(server)
        assert samples[("medianserve_journal_failing",)] == 1
        assert samples[("medianserve_snapshot_failing",)] == 1
        assert samples[("medianserve_ready",)] == 1
        moved.rename(tmp_path / "state.db")
        assert await server.service.snapshot()
        samples = await _samples(server)
        assert samples[("medianserve_journal_failing",)] == 0
        assert samples[("medianserve_snapshot_failing",)] == 0


async def test_requests_that_wait_for_their_commit_are_seen(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        async with server.service.state.changing:  # as a snapshot does for a moment
            waiting = [
                asyncio.create_task(server.record(batch(str(number), ["u"], [1])))
                for number in range(3)
            ]
            deadline = time.monotonic() + 10
            while not server.service.requests_waiting:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
            assert (await _samples(server))[("medianserve_requests_waiting",)] > 0
        await asyncio.gather(*waiting)
        assert (await _samples(server))[("medianserve_requests_waiting",)] == 0


async def test_process_and_version_are_told(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        samples = await _samples(server)
        assert samples["medianserve_build_info", __version__] == 1
        assert samples[("process_resident_memory_bytes",)] > 1e6
        assert samples[("process_start_time_seconds",)] == pytest.approx(time.time(), abs=3600)
        assert samples[("process_open_fds",)] > 0


def test_there_is_one_version() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["version"] == load_spec()["info"]["version"] == __version__


async def test_names_follow_the_conventions(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        text = (await server.ask("GET", "/metrics")).text
        families = {family.name: family for family in text_string_to_metric_families(text)}
        for name, family in families.items():
            assert name.startswith(("medianserve_", "process_")), name
            assert family.documentation.endswith("."), name
            assert not name.endswith(("_ms", "_milliseconds", "_mb", "_percent")), name
            if family.type == "counter":
                assert any(sample.name.endswith("_total") for sample in family.samples), name
            else:
                assert not name.endswith("_total"), name
            if name.endswith("_limit"):
                assert name.removesuffix("_limit") in families, name
