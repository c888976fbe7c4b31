"""What is served names no address but its own: behind a proxy's path, and on other ports."""

import contextlib
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
import pytest
from aiohttp import web

from tests.state_service.state_support import Server, serving

PREFIX = "/tools/scores"


@contextlib.asynccontextmanager
async def below_a_path(server: Server) -> AsyncIterator[Server]:
    """Serve it as nginx does with `location /tools/scores/ { proxy_pass http://…/; }`."""

    async def hand_on(request: web.Request) -> web.Response:
        url = server.url + request.path_qs.removeprefix(PREFIX)
        async with server.session.request(
            request.method, url, allow_redirects=False, data=await request.read()
        ) as answer:
            kept = {
                name: value
                for name, value in answer.headers.items()
                if name in ("Content-Type", "Location", "Content-Security-Policy")
            }
            return web.Response(status=answer.status, headers=kept, body=await answer.read())

    app = web.Application()
    app.router.add_route("*", PREFIX + "/{rest:.*}", hand_on)  # and nothing is anywhere else
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        async with aiohttp.ClientSession() as session:
            url = f"http://{host}:{port}{PREFIX}"
            yield Server(url, session, server.app, server.service)
    finally:
        await runner.cleanup()


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src", "action") and value and not value.startswith("data:"):
                self.found.append(value)
            if name == "content" and value and "url=" in value:
                self.found.append(value.partition("url=")[2])


@pytest.mark.parametrize("page", ["/", "/docs", "/docs/", "/overview?user_id=alice"])
async def test_a_page_and_all_that_it_names_are_there_below_a_proxys_path(
    tmp_path: Path, page: str
) -> None:
    async with serving(tmp_path) as server, below_a_path(server) as proxied:
        answer = await proxied.ask("GET", page)
        assert answer.status == 200
        links = _Links()
        links.feed(answer.text)
        named = [*links.found, *re.findall(r'\burl: "([^"]+)"', answer.text)]
        assert len(named) > 3
        for link in named:
            address = urljoin(proxied.url + page, link)
            assert address.startswith(proxied.url), link
            async with proxied.session.get(address) as found:
                assert found.status == 200, address


@pytest.mark.parametrize("script", ["main.js", "user.js", "stream.js", "overview.js"])
async def test_a_script_names_no_address_from_the_root(tmp_path: Path, script: str) -> None:
    async with serving(tmp_path) as server, below_a_path(server) as proxied:
        text = (await proxied.ask("GET", f"/dashboard/{script}")).text
        assert re.findall(r"""["'`]/(?!\\|/)[a-z]+""", text) == []


async def test_the_document_s_servers_are_relative_to_itself_and_torchserves_is_this_stacks(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, torchserve_url="http://127.0.0.1:8180/") as server:
        async with below_a_path(server) as proxied:
            spec = (await proxied.ask("GET", "/openapi.json")).body
            (own,) = spec["servers"]
            base = urljoin(proxied.url + "/openapi.json", own["url"]).rstrip("/")
            assert base == proxied.url
        (scorer,) = spec["paths"]["/predictions/scorer"]["servers"]
        assert scorer["url"] == "http://127.0.0.1:8180"
        assert "servers" not in spec["paths"]["/ingest"]  # so a page may ask it: one origin
        policy = (await server.ask("GET", "/docs")).headers["Content-Security-Policy"]
        assert "connect-src 'self' http://127.0.0.1:8180;" in policy
    known: dict[str, Any] = {
        "torchserve_url": "http://torchserve:8080",
        "torchserve_public_url": "https://s.test",
    }
    async with serving(tmp_path, **known) as server:
        spec = (await server.ask("GET", "/openapi.json")).body
        (scorer,) = spec["paths"]["/predictions/scorer"]["servers"]
        assert urlsplit(scorer["url"]).netloc == "s.test"
