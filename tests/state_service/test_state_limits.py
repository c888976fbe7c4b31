"""Every limit: at it all is well, one beyond it there is its answer, and it is counted."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from handler.settings import HandlerSettings
from state_service.settings import LIMITS, Settings, settings_table
from tests.state_service.state_support import REPOSITORY, Answer, Server, batch, serving

_Ask = Callable[[Server, int], Awaitable[Answer]]


async def _scores(server: Server, *batches: dict[str, object]) -> Answer:
    return await server.ask("POST", "/scores", json={"batches": batches})


async def _body_of(server: Server, size: int) -> Answer:
    body = b'{"batches":[]}'.ljust(size)
    return await server.ask("POST", "/scores", data=body)


async def _batches(server: Server, count: int) -> Answer:
    return await _scores(server, *(batch(f"k{number}", [], []) for number in range(count)))


async def _user_id_of(server: Server, size: int) -> Answer:
    return await server.ask("GET", f"/users/{'u' * size}/median")


async def _recorded_user_id_of(server: Server, size: int) -> Answer:
    return await _scores(server, batch(f"k{size}", ["u" * size], [1.0]))


async def _forgotten_user_id_of(server: Server, size: int) -> Answer:
    return await server.ask("DELETE", f"/users/{'u' * size}")


async def _asked_user_id_of(server: Server, size: int) -> Answer:
    return await server.ask("POST", "/medians", json={"user_ids": ["u" * size]})


async def _key_of(server: Server, size: int) -> Answer:
    return await _scores(server, batch("k" * size, ["u"], [1.0]))


async def _lookup(server: Server, count: int) -> Answer:
    return await server.ask("POST", "/medians", json={"user_ids": ["u"] * count})


async def _quantiles(server: Server, count: int) -> Answer:
    return await server.ask("GET", f"/users/u/stats?q={','.join(['0.5'] * count)}")


async def _listed(server: Server, count: int) -> Answer:
    return await server.ask("GET", f"/users?limit={count}")


async def _events(server: Server, count: int) -> Answer:
    return await _scores(server, batch(f"k{count}", ["u"] * (count // 4), [1.0] * (count // 4)))


async def _users(server: Server, count: int) -> Answer:
    return await _scores(server, batch(f"k{count}", [f"u{n}" for n in range(count)], [1.0] * count))


async def _keys(server: Server, count: int) -> Answer:
    held = len(server.service.keys)
    return await _scores(server, *(batch(f"{count} {n}", [], []) for n in range(count - held)))


async def _body_in(server: Server, tenths: int) -> Answer:
    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"batches":'
        await asyncio.sleep(0.05 if tenths <= 10 else 2)
        yield b"[]}"

    return await server.ask("POST", "/scores", data=slowly())


CASES: list[tuple[str, float, _Ask, int, int, int, str]] = [
    # setting, its value, what is asked, at the limit, beyond it, status, code
    ("max_body_bytes", 1000, _body_of, 1000, 1001, 413, "too_large"),
    ("max_batches", 3, _batches, 3, 4, 413, "too_large"),
    ("max_user_id_bytes", 20, _user_id_of, 20, 21, 400, "invalid_request"),
    ("max_user_id_bytes", 20, _recorded_user_id_of, 20, 21, 400, "invalid_request"),
    ("max_user_id_bytes", 20, _asked_user_id_of, 20, 21, 400, "invalid_request"),
    ("max_user_id_bytes", 20, _forgotten_user_id_of, 20, 21, 400, "invalid_request"),
    ("max_key_bytes", 20, _key_of, 20, 21, 400, "invalid_request"),
    ("max_lookup_users", 5, _lookup, 5, 6, 413, "too_large"),
    ("max_quantiles", 5, _quantiles, 5, 6, 400, "invalid_request"),
    ("max_listed", 5, _listed, 5, 6, 400, "invalid_request"),
    ("max_live_events", 10, _events, 40, 4, 503, "capacity"),
    ("max_active_users", 10, _users, 10, 11, 503, "capacity"),
    ("max_batch_keys", 10, _keys, 10, 11, 503, "capacity"),
    ("body_timeout_seconds", 1.0, _body_in, 10, 11, 400, "body_timeout"),
]
ELSEWHERE = {
    "max_ingests_in_flight": (
        "test_more_at_once_than_the_limit_are_told_to_wait_and_do_not_keep_out_scores"
    ),
    "ingest_timeout_seconds": (
        "test_when_torchserve_breaks_off_or_is_late_it_is_not_known_what_was_counted"
    ),
    "max_requests_in_flight": "test_more_requests_at_once_than_the_limit_are_told_to_wait",
    "max_viewers": "test_beyond_the_limit_viewers_are_refused_and_their_room_comes_back",
    "max_forgotten_users": "test_a_tombstone_holds_for_its_time_and_the_oldest_makes_room",
}


async def _hits(server: Server) -> dict[str, float]:
    """Return each limit's count as /metrics tells it; /stats must tell the same."""
    text = (await server.ask("GET", "/metrics")).text
    counted = {
        sample.labels["limit"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "medianserve_limit_hits_total"
    }
    assert counted == (await server.get("/stats"))["limit_hits"]
    return counted


@pytest.mark.parametrize(
    ("setting", "value", "ask", "at", "beyond", "status", "code"),
    CASES,
    ids=[f"{case[0]}-{case[2].__name__.strip('_')}" for case in CASES],
)
async def test_at_a_limit_all_is_well_and_beyond_it_there_is_its_answer_and_count(
    tmp_path: Path,
    setting: str,
    value: float,
    ask: _Ask,
    at: int,
    beyond: int,
    status: int,
    code: str,
) -> None:
    given: dict[str, Any] = {setting: value}
    async with serving(tmp_path, **given) as server:
        answer = await ask(server, at)
        assert answer.status == 200, answer.text
        assert await _hits(server) == dict.fromkeys(LIMITS, 0)
        answer = await ask(server, beyond)
        assert (answer.status, answer.body["code"]) == (status, code)
        assert await _hits(server) == dict.fromkeys(LIMITS, 0) | {setting: 1}
        assert ("Retry-After" in answer.headers) == (status == 503)


async def test_what_is_empty_or_no_number_is_not_counted_as_beyond_a_limit(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        assert (await _key_of(server, 0)).status == 400
        assert (await _recorded_user_id_of(server, 0)).status == 400
        assert (await server.ask("GET", "/users/u/stats?q=2")).status == 400
        assert await _hits(server) == dict.fromkeys(LIMITS, 0)


async def test_requests_in_flight_are_counted_when_there_are_too_many(tmp_path: Path) -> None:
    async with serving(tmp_path, max_requests_in_flight=1) as server:
        server.service.requests_in_flight = 1
        for method, path in [("POST", "/scores"), ("POST", "/medians"), ("DELETE", "/users/u")]:
            await server.problem(method, path, 503, "busy")
        server.service.requests_in_flight = 0
        assert (await _hits(server))["max_requests_in_flight"] == 3
        assert (await _forgotten_user_id_of(server, 1)).status == 200


def test_every_limit_has_a_case() -> None:
    assert {case[0] for case in CASES} | set(ELSEWHERE) == set(LIMITS)


# --- docs/limits.md ---------------------------------------------------------------------------

_NOT_A_LIMIT = {"max_future_seconds"}  # says what a window is


def _documented(title: str) -> dict[str, list[str]]:
    """Return the cells of a section's table by setting."""
    text = (REPOSITORY / "docs" / "limits.md").read_text()
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("| ") and "---" not in line
    ]
    return {row[1].strip("`"): row for row in rows[1:]}


def _is_limit(name: str) -> bool:
    return ("max_" in name and name not in _NOT_A_LIMIT) or "timeout" in name


def test_the_table_names_exactly_the_limits_there_are_with_their_defaults() -> None:
    defaults = {row.name: row.default for row in settings_table() if _is_limit(row.name)}
    documented = _documented("The state service")
    assert set(documented) == set(defaults) == set(LIMITS)
    handler = {name for name in HandlerSettings.__struct_fields__ if _is_limit(name)}
    of_handler = _documented("The handler")
    assert set(of_handler) == handler
    defaults |= {f"handler {name}": getattr(HandlerSettings(), name) for name in handler}
    documented |= {f"handler {name}": row for name, row in of_handler.items()}
    for name, row in documented.items():
        assert float(row[2].partition(" ")[0].replace(",", "")) == defaults[name], name


def test_the_tests_that_the_table_names_exist() -> None:
    text = (REPOSITORY / "docs" / "limits.md").read_text()
    files = list((REPOSITORY / "tests").rglob("test_*.py"))
    sources = "".join(file.read_text() for file in files)
    named = re.findall(r"`(test_\w+)`", text)
    assert len(named) > 15
    for name in named:
        assert f"def {name}(" in sources or name in {file.stem for file in files}, name


def test_no_limit_can_be_switched_off_by_a_zero() -> None:
    assert all(getattr(Settings(), name) > 0 for name in LIMITS)
