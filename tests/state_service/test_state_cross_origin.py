"""A page of the user's own, on another origin: what it may ask for and read."""

from pathlib import Path
from typing import Any

import pytest

from state_service.access import Guard
from state_service.cross_origin import CrossOrigin
from state_service.settings import Settings, SettingsError
from tests.state_service.state_support import Answer, Server, batch, serving

OWN, OTHER = "https://dash.example.com", "https://evil.example"
WRITE = "write-token-of-the-tests"


def _opened(answer: Answer) -> dict[str, str]:
    return {
        name: value
        for name, value in answer.headers.items()
        if name.startswith("Access-Control-Allow-")
    }


async def _preflight(server: Server, method: str, path: str, origin: str = OWN) -> Answer:
    headers = {"Origin": origin, "Access-Control-Request-Method": method}
    return await server.ask("OPTIONS", path, headers=headers)


async def test_a_page_that_is_named_reads_answers_and_problems(tmp_path: Path) -> None:
    async with serving(tmp_path, cors_allowed_origins=f"http://a.test, {OWN}") as server:
        for path in ("/users/u/median", "/users/u/median?window=x", "/nothing", "/events?limit=1"):
            answer = await server.ask("GET", path, headers={"Origin": OWN})
            assert _opened(answer) == {"Access-Control-Allow-Origin": OWN}
            assert answer.headers["Vary"] == "Origin"
            assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize("origin", [OTHER, "null", f"{OWN}.evil.example", f"{OWN}:444", ""])
async def test_no_other_page_reads_anything(tmp_path: Path, origin: str) -> None:
    async with serving(tmp_path, cors_allowed_origins=OWN) as server:
        answer = await server.ask("GET", "/stats", headers={"Origin": origin})
        assert _opened(answer) == {}
        assert answer.headers["Vary"] == "Origin"  # or a cache would show it the other's answer
        assert _opened(await _preflight(server, "GET", "/stats", origin)) == {}


async def test_a_star_is_any_origin(tmp_path: Path) -> None:
    async with serving(tmp_path, cors_allowed_origins="*") as server:
        answer = await server.ask("GET", "/stats", headers={"Origin": OTHER})
        assert _opened(answer) == {"Access-Control-Allow-Origin": OTHER}


async def test_a_preflight_allows_what_the_page_may_ask_for(tmp_path: Path) -> None:
    async with serving(tmp_path, cors_allowed_origins=OWN, write_token=WRITE) as server:
        for method, path in (
            ("GET", "/stats"),
            ("POST", "/medians"),
            ("POST", "/scores"),
            ("POST", "/ingest"),
            ("DELETE", "/users/u"),
        ):
            answer = await _preflight(server, method, path)
            assert (answer.status, answer.text) == (204, "")
            opened = _opened(answer)
            assert opened["Access-Control-Allow-Origin"] == OWN
            assert opened["Access-Control-Allow-Methods"] == method
            assert "Authorization" in opened["Access-Control-Allow-Headers"]
            assert "Access-Control-Allow-Credentials" not in opened
        assert (await _preflight(server, "PUT", "/scores")).status == 405
        assert (await _preflight(server, "GET", "/nothing")).status == 404


async def test_a_page_changes_something_only_with_a_token(tmp_path: Path) -> None:
    body = {"batches": [batch("k", ["u"], [1.0])]}  # dated now
    asked: dict[str, Any] = {"json": body, "headers": {"Origin": OWN}}
    async with serving(tmp_path, cors_allowed_origins=OWN) as server:
        for path in ("/scores", "/ingest"):
            await server.problem("POST", path, 403, "forbidden", **asked)
            assert (await _preflight(server, "POST", path)).status == 403
    async with serving(tmp_path, cors_allowed_origins=OWN, write_token=WRITE) as server:
        await server.problem("POST", "/scores", 401, "unauthorized", **asked)
        asked["headers"]["Authorization"] = f"Bearer {WRITE}"
        assert (await server.ask("POST", "/scores", **asked)).body["accepted"] == 1


@pytest.mark.parametrize(
    "given", ["dash.example.com", "https://dash.example.com/", "https://*.example.com", "null", "x"]
)
def test_what_is_no_origin_is_refused_at_the_start(given: str) -> None:
    settings = Settings(cors_allowed_origins=f"{OWN},{given}")
    with pytest.raises(SettingsError, match=r"STATE_CORS_ALLOWED_ORIGINS.*such as https://"):
        CrossOrigin(settings, Guard(settings))
