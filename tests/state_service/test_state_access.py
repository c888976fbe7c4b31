"""Who gets in: tokens and their rights, other sites in a browser, and what a start refuses."""

import asyncio
import signal
import stat
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from state_service.access import RIGHTS
from state_service.settings import Settings, SettingsError
from state_service.tokens import Right, Tokens, load_tokens
from tests.state_service.state_support import Client, Server, batch, launched, serving, spawn

READ, WRITE = "read-token-of-the-tests", "write-token-of-the-tests"
INGEST = "ingest-token-of-the-tests"
TOKENS: dict[str, Any] = {"read_token": READ, "write_token": WRITE, "ingest_token": INGEST}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# --- tokens as settings ---------------------------------------------------------------------------


def test_a_token_comes_from_a_file_without_its_last_newline(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(WRITE + "\n")
    tokens = load_tokens(Settings(write_token_file=str(file), read_token=READ))
    assert tokens == Tokens(READ.encode(), WRITE.encode())


@pytest.mark.parametrize(
    "content",
    ["", "\n", "too-short", "with a space in between", WRITE + "\n\n", WRITE + "\r\n", "ü" * 20],
)
@pytest.mark.parametrize("as_file", [False, True])
def test_a_token_that_cannot_be_used_is_refused_without_showing_it(
    tmp_path: Path, content: str, as_file: bool
) -> None:
    file = tmp_path / "token"
    file.write_bytes(content.encode())
    settings = Settings(write_token_file=str(file)) if as_file else Settings(write_token=content)
    with pytest.raises(SettingsError, match="STATE_WRITE_TOKEN") as caught:
        load_tokens(settings)
    assert not content.strip() or content not in str(caught.value)


def test_what_contradicts_itself_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(WRITE)
    for settings, sentence in [
        (Settings(write_token=WRITE, write_token_file=str(file)), "not both"),
        (Settings(read_token=READ), "nobody could record"),
        (Settings(read_token=WRITE, write_token=WRITE), "make them two"),
        (Settings(ingest_token=INGEST), "STATE_INGEST_TOKEN.*nobody could record"),
        (Settings(ingest_token=WRITE, write_token=WRITE), "STATE_INGEST_TOKEN.*make them two"),
        (Settings(ingest_token=READ, read_token=READ, write_token=WRITE), "make them two"),
        (Settings(write_token_file=str(tmp_path / "none")), "No such file"),
        (Settings(write_token_file=str(tmp_path)), "Is a directory"),
    ]:
        with pytest.raises(SettingsError, match=sentence):
            load_tokens(settings)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "example.com", "127.0.0.1.nip"])
def test_beyond_loopback_a_token_or_a_word_is_needed(host: str) -> None:
    with pytest.raises(SettingsError, match=r"STATE_HOST.*write_token_file.*allow_anonymous=true"):
        load_tokens(Settings(host=host))
    assert load_tokens(Settings(host=host, write_token=WRITE)).required
    assert not load_tokens(Settings(host=host, allow_anonymous=True)).required


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_on_loopback_no_token_is_needed(host: str) -> None:
    assert not load_tokens(Settings(host=host)).required


@given(st.binary())
def test_only_the_tokens_themselves_give_a_right(given_bytes: bytes) -> None:
    tokens = Tokens(READ.encode(), WRITE.encode(), INGEST.encode())
    expected = {READ.encode(): Right.READ, INGEST.encode(): Right.INGEST, WRITE.encode(): Right.ALL}
    assert tokens.right_of(given_bytes) == expected.get(given_bytes, Right.NOTHING)
    assert Tokens().right_of(given_bytes) == Right.NOTHING
    assert READ not in repr(tokens) + repr(Settings(read_token=READ))


async def test_a_refused_start_opens_no_database_and_is_one_sentence(tmp_path: Path) -> None:
    database = tmp_path / "state.db"
    process = await spawn("--host", "0.0.0.0", "--port", "0", "--database", str(database))
    stdout, stderr = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 1
    assert stdout == b""
    assert stderr.decode().startswith("error: STATE_HOST (host): ")
    assert stderr.count(b"\n") == 1
    assert not database.exists()


# --- rights ---------------------------------------------------------------------------------------


def _routes(app: web.Application) -> set[tuple[str, str]]:
    return {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }


def _path_of(canonical: str) -> str:
    endless = "?limit=1" if canonical == "/events" else ""
    return canonical.replace("{user_id}", "u") + endless


async def test_every_route_of_the_service_has_a_right_in_the_table(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        routes = _routes(server.app)
    assert len(routes) > 10
    assert {route for route in routes if route not in RIGHTS} == set()


async def test_every_route_asks_for_what_the_table_says(tmp_path: Path) -> None:
    async with serving(tmp_path, **TOKENS) as server:
        for method, canonical in _routes(server.app):
            path = _path_of(canonical)
            needed = RIGHTS[method, canonical]
            for token, right in [
                ("", Right.NOTHING),
                (READ + "x", Right.NOTHING),
                (READ, Right.READ),
                (INGEST, Right.INGEST),
                (WRITE, Right.ALL),
            ]:
                headers = bearer(token) if token else {}
                status = (await server.ask(method, path, headers=headers)).status
                if needed in right:
                    assert status not in (401, 403), path
                else:
                    assert status == (401 if right is Right.NOTHING else 403), path


async def test_a_route_that_the_table_does_not_know_needs_the_write_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rights = {route: right for route, right in RIGHTS.items() if route != ("GET", "/stats")}
    monkeypatch.setattr("state_service.access.RIGHTS", rights)
    async with serving(tmp_path, **TOKENS) as server:
        await server.problem("GET", "/stats", 403, "forbidden", headers=bearer(READ))
        assert (await server.ask("GET", "/stats", headers=bearer(WRITE))).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": WRITE},
        {"Authorization": f"Basic {WRITE}"},
        {"Authorization": f"Bearer {WRITE}x"},
        {"Authorization": f"Bearer {WRITE[:-1]}"},
        {"Authorization": f"Bearer {WRITE.upper()}"},
        {"Authorization": f"Bearer {WRITE},{WRITE}"},
        {"Authorization": "Bearer ü€"},
        [("Authorization", f"Bearer {WRITE}"), ("Authorization", f"Bearer {WRITE}")],
    ],
    ids=str,
)
async def test_anything_but_one_right_token_is_unauthorized(tmp_path: Path, headers: Any) -> None:
    async with serving(tmp_path, **TOKENS) as server:
        refused = server.service.counters.requests_refused
        answer = await server.problem("POST", "/scores", 401, "unauthorized", headers=headers)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
        assert "write token" in answer.body["detail"]
        assert server.service.counters.requests_refused == refused + 1


async def test_the_write_token_records_and_both_tokens_read(tmp_path: Path) -> None:
    body = {"batches": [batch("k", ["u"], [1.0])]}
    async with serving(tmp_path, **TOKENS) as server:
        recorded = await server.ask("POST", "/scores", json=body, headers=bearer(WRITE))
        assert recorded.body["accepted"] == 1
        await server.problem("POST", "/scores", 403, "forbidden", json=body, headers=bearer(READ))
        for headers in (bearer(READ), bearer(WRITE), {"Authorization": f"bearer  {READ}"}):
            answer = await server.ask("GET", "/users/u/median", headers=headers)
            assert (answer.status, answer.body["count"]) == (200, 1)


async def test_an_unknown_address_is_one_for_everybody(tmp_path: Path) -> None:
    async with serving(tmp_path, **TOKENS) as server:
        await server.problem("GET", "/nothing", 404, "not_found")
        await server.problem("PUT", "/scores", 405, "method_not_allowed")


async def test_without_a_read_token_only_the_write_token_reads(tmp_path: Path) -> None:
    async with serving(tmp_path, write_token=WRITE) as server:
        await server.problem("GET", "/stats", 401, "unauthorized")
        await server.problem("GET", "/metrics", 401, "unauthorized", headers=bearer(READ))
        assert (await server.ask("GET", "/metrics", headers=bearer(WRITE))).status == 200


async def test_a_token_is_in_no_answer_and_in_no_log(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(WRITE + "\n")
    arguments = ("--write-token-file", str(file), "--read-token", READ, "--log-level", "debug")
    async with launched(tmp_path, *arguments) as process:
        said = []
        for path in ("/stats", "/metrics", "/docs", "/users/u/median", "/nothing", "/scores"):
            for token in (READ, WRITE, READ + "x"):
                answer = await process.ask("GET", path, headers=bearer(token))
                said += [answer.text, str(answer.headers)]
        _, stderr = await process.stop(signal.SIGTERM)
    for token in (READ, WRITE):
        assert not any(token in text for text in [*said, stderr])


# --- browsers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:1", "127.0.0.1:8090", "[::1]:8090", "192.0.2.7", "scores.test:1"],
)
async def test_without_tokens_it_goes_by_addresses_and_by_its_own_names(
    tmp_path: Path, host: str
) -> None:
    async with serving(tmp_path, allowed_hosts="other.test, Scores.test") as server:
        assert (await server.ask("GET", "/stats", headers={"Host": host})).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "[evil]", ":80"]
)
async def test_a_page_whose_name_leads_here_reads_nothing(tmp_path: Path, host: str) -> None:
    async with serving(tmp_path) as server:
        for method, path in (("GET", "/stats"), ("GET", "/docs"), ("POST", "/scores")):
            await server.problem(method, path, 421, "misdirected_request", headers={"Host": host})
    async with serving(tmp_path, **TOKENS) as server:
        headers = {"Host": host, **bearer(READ)}
        assert (await server.ask("GET", "/stats", headers=headers)).status == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "", "http://localhost", "http://[", "a://b://c"]
)
async def test_a_page_of_another_site_changes_nothing(tmp_path: Path, origin: str) -> None:
    body = {"batches": [batch("k", ["u"], [1.0])]}
    headers = {"Origin": origin, "Content-Type": "text/plain"}  # needs no leave of ours to be sent
    async with serving(tmp_path) as server:
        await server.problem("POST", "/scores", 403, "forbidden", json=body, headers=headers)
        assert (await server.get("/users/u/median"))["count"] == 0


async def test_its_own_page_may_try_things_out(tmp_path: Path) -> None:
    body = {"batches": [batch("k", ["u"], [1.0])]}
    async with serving(tmp_path) as server:
        answer = await server.ask("POST", "/scores", json=body, headers={"Origin": server.url})
        assert answer.status == 200


async def _cross_origin_headers(client: Client, method: str, path: str) -> list[str]:
    asked = {
        "Origin": "http://evil.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    answer = await client.ask(method, path, headers=asked)
    return [name for name in answer.headers if name.lower().startswith("access-control-")]


async def test_no_answer_opens_the_service_to_pages_of_other_sites(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for method, canonical in _routes(server.app):
            path = _path_of(canonical)
            for asked in (method, "OPTIONS"):
                assert await _cross_origin_headers(server, asked, path) == []
        preflight = await server.ask("OPTIONS", "/scores", headers={"Origin": "http://evil"})
        assert preflight.status == 405


async def test_answers_are_not_kept_nor_guessed_at(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for path in ("/users/u/median", "/stats", "/metrics", "/nothing", "/docs"):
            headers = (await server.ask("GET", path)).headers
            assert headers["Cache-Control"] == "no-store"
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert headers["Server"] == "medianserve"


async def test_pages_load_from_here_alone_and_in_no_frame(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await _check_page(server, "/docs", "script-src 'self' 'sha256-")
        await _check_page(server, "/docs/static/oauth2-redirect.html", "default-src 'none'")


async def _check_page(server: Server, path: str, policy: str) -> None:
    headers = (await server.ask("GET", path)).headers
    assert policy in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    scripts = headers["Content-Security-Policy"].partition("style-src")[0]
    assert "unsafe" not in scripts
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"


async def test_a_probe_is_answered_under_any_name(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for path in ("/healthz", "/readyz"):
            answer = await server.ask("GET", path, headers={"Host": "10-0-0-7.pods.internal"})
            assert answer.status == 200


@pytest.mark.parametrize(
    ("allowed", "host", "status"),
    [
        ("*", "anything.example:1", 200),
        ("*.Scores.test", "a.scores.test", 200),
        ("*.scores.test", "a.b.scores.test:8090", 200),
        ("*.scores.test", "scores.test", 421),
        ("*.scores.test", "evilscores.test", 421),
        ("*.scores.test", "scores.test.evil.example", 421),
        ("other.test, *.scores.test", "other.test", 200),
    ],
)
async def test_a_star_allows_every_name_below_its_suffix(
    tmp_path: Path, allowed: str, host: str, status: int
) -> None:
    async with serving(tmp_path, allowed_hosts=allowed) as server:
        assert (await server.ask("GET", "/stats", headers={"Host": host})).status == status


# --- files ----------------------------------------------------------------------------------------


async def test_what_it_writes_is_for_its_own_account_alone(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "down"
    async with launched(folder) as process:
        await process.record(batch("k", ["u"], [1.0]))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
        assert set(modes) >= {"state.db", "state.db-wal", "state.db.lock"}
        assert set(modes.values()) == {0o600}
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        copy = await spawn("backup", str(folder / "state.db"), str(folder / "copy.db"))
        assert await copy.wait() == 0
    assert stat.S_IMODE((folder / "copy.db").stat().st_mode) == 0o600
