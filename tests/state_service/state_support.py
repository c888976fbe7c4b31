"""A real state service on a free port, in this process or in its own, and small helpers."""

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

from state_service.app import create_app
from state_service.app_keys import SERVICE
from state_service.service import StateService
from state_service.settings import ENVIRONMENT_PREFIX, Settings

REPOSITORY = Path(__file__).parents[2]
COMMAND = ("-m", "state_service")
PROBLEM_FIELDS = {"type", "title", "status", "code", "detail"}


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, read."""

    status: int
    headers: Mapping[str, str]
    text: str
    body: Any  # decoded JSON; None for anything else


@dataclass
class Client:
    """Asks one address; paths are sent as they are written, percent-encoding included."""

    url: str
    session: aiohttp.ClientSession

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        """Send one request and read its answer."""
        url = URL(self.url + path, encoded=True)
        async with self.session.request(method, url, **options) as response:
            text = await response.text()
            body = msgspec.json.decode(text) if text and "json" in response.content_type else None
            return Answer(response.status, response.headers, text, body)

    async def get(self, path: str) -> Any:
        """Return the body of a GET that must succeed."""
        answer = await self.ask("GET", path)
        assert answer.status == 200, answer.text
        return answer.body

    async def post(self, path: str, body: object) -> Any:
        """Return the body of a POST that must succeed."""
        answer = await self.ask("POST", path, json=body)
        assert answer.status == 200, answer.text
        return answer.body

    async def record(self, *batches: dict[str, object]) -> Any:
        """Post batches that must be taken."""
        return await self.post("/scores", {"batches": batches})

    async def problem(
        self,
        method: str,
        path: str,
        status: int,
        code: str,
        **options: Any,
    ) -> Answer:
        """Send a request that must fail so; check the form of the problem."""
        answer = await self.ask(method, path, **options)
        assert (answer.status, (answer.body or {}).get("code")) == (status, code), answer.text
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert set(answer.body) == PROBLEM_FIELDS
        assert answer.body["status"] == status
        assert ("Retry-After" in answer.headers) == (status == 503)
        return answer

    async def ready(self) -> Self:
        """Wait until the service is."""
        for _ in range(2000):
            if (await self.ask("GET", "/readyz")).status == 200:
                return self
            await asyncio.sleep(0.005)
        raise TimeoutError


@dataclass
class Server(Client):
    """A state service in this process, on a real socket."""

    app: web.Application
    service: StateService

    def set_clock(self, now: float) -> None:
        """Stop the service's clock at `now`."""
        self.service.clock = lambda: now


@contextlib.asynccontextmanager
async def serving(
    folder: Path,
    *,
    wait: bool = True,
    **settings: Any,
) -> AsyncIterator[Server]:
    """Serve on a free port until the block ends, as until SIGTERM; `wait` until it is ready."""
    # A long interval: tests take their snapshots themselves.
    defaults: dict[str, Any] = {
        "database": str(folder / "state.db"),
        "snapshot_interval_seconds": 3600.0,
    }
    app = await create_app(Settings(**(defaults | settings)))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", settings.get("port", 0)).start()
        host, port = runner.addresses[0][:2]
        async with aiohttp.ClientSession() as session:
            server = Server(f"http://{host}:{port}", session, app, app[SERVICE])
            yield await server.ready() if wait else server
    finally:
        await runner.cleanup()


@dataclass
class ServiceProcess(Client):
    """`python -m state_service` as a process of its own."""

    process: asyncio.subprocess.Process

    async def stop(self, number: signal.Signals) -> tuple[int, str]:
        """Send a signal; return the exit status and what was written to stderr."""
        self.process.send_signal(number)
        _, stderr = await asyncio.wait_for(self.process.communicate(), 20)
        assert self.process.returncode is not None
        return self.process.returncode, stderr.decode()


@contextlib.asynccontextmanager
async def launched(
    folder: Path, *arguments: str, program: Sequence[str] = COMMAND
) -> AsyncIterator[ServiceProcess]:
    """Run the service's command on a free port; kill it when the block ends."""
    place = ("--port", "0", "--database", str(folder / "state.db"))
    process = await spawn(*place, *arguments, program=program)
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
        found = re.search(r"http://\S+", line)
        assert found, line + (await process.communicate())[1].decode()
        async with aiohttp.ClientSession() as session:
            yield await ServiceProcess(found[0], session, process).ready()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def spawn(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    program: Sequence[str] = COMMAND,
) -> asyncio.subprocess.Process:
    """Start `python -m state_service` without waiting for it."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)
    }
    return await asyncio.create_subprocess_exec(
        *(sys.executable, *program, *arguments),
        cwd=REPOSITORY,
        env=clean | dict(environment or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def batch(
    key: str,
    user_ids: Sequence[str],
    scores: Sequence[float],
    timestamps: Sequence[float] | None = None,
    **more: object,
) -> dict[str, object]:
    """Return one batch as `POST /scores` takes it; its events are of this moment by default."""
    return {
        "key": key,
        "user_id": list(user_ids),
        "timestamp": list(timestamps or [time.time()] * len(user_ids)),
        "score": list(scores),
        **more,
    }
