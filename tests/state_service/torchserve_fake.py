"""TorchServe as the state service asks it: two addresses in one, saying what a test wants."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiohttp import web


@dataclass
class FakeTorchServe:
    """Answers `/ping` and the description of the model."""

    url: str = ""
    ping: str = "Healthy"
    worker_states: list[str] = field(default_factory=lambda: ["READY", "READY"])
    status: int = 200
    body: bytes | None = None  # instead of the model's description
    delay_seconds: float = 0.0
    asked: int = 0

    async def get_ping(self, _request: web.Request) -> web.Response:
        """Answer as the inference address."""
        return web.json_response({"status": self.ping})

    async def get_model(self, _request: web.Request) -> web.Response:
        """Answer as the management address."""
        self.asked += 1
        await asyncio.sleep(self.delay_seconds)
        if self.body is not None:
            return web.Response(status=self.status, body=self.body)
        workers = [
            {"id": str(9000 + number), "startTime": "2026-01-01T00:00:00.000Z", "status": state,
             "memoryUsage": 0, "pid": 1, "gpu": False, "gpuUsage": "N/A"}
            for number, state in enumerate(self.worker_states)
        ]  # fmt: skip
        model = {
            "modelName": "scorer",
            "modelVersion": "1.0",
            "modelUrl": "scorer.mar",
            "runtime": "python",
            "minWorkers": 2,
            "maxWorkers": 2,
            "batchSize": 32,
            "workers": workers,
            "jobQueueStatus": {"remainingCapacity": 997, "pendingRequests": 3},
        }
        return web.json_response([model], status=self.status)


@contextlib.asynccontextmanager
async def torchserve() -> AsyncIterator[FakeTorchServe]:
    """Serve on a free port until the block ends."""
    fake = FakeTorchServe()
    app = web.Application()
    app.router.add_get("/ping", fake.get_ping)
    app.router.add_get("/models/scorer", fake.get_model)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        fake.url = f"http://{host}:{port}"
        yield fake
    finally:
        await runner.cleanup()
