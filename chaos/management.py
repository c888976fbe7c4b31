"""TorchServe's management API: how many workers there are, and which version serves.

A version is replaced without losing a request by registering the new one, making it the default,
waiting until the old one has nothing to do, and only then deleting it.
"""

import asyncio
import json
import time
from typing import Any

import aiohttp

from handler.archive import MODEL_NAME

_POLL_SECONDS = 0.2
# A request that was given to the old version just before the default changed must have ended, too:
# a batch takes milliseconds, recording it at most forward_timeout_seconds (2).
_IN_FLIGHT_SECONDS = 3.0


class ManagementError(Exception):
    """TorchServe did not do it; the message is what it said."""


class Management:
    """A client of the management API. `archives` are file names in the model store, by version."""

    def __init__(self, session: aiohttp.ClientSession, url: str, archives: dict[str, str]) -> None:
        self._session = session
        self._models = f"{url}/models"
        self._archives = archives

    async def scale(self, workers: int) -> None:
        """Have so many workers of the default version, all ready."""
        path = f"/{MODEL_NAME}?min_worker={workers}&max_worker={workers}"
        await self._ask("PUT", path)
        await self._until_ready(MODEL_NAME, workers)

    async def replace_version(self, workers: int) -> str:
        """Serve another version with so many workers, delete the old one; return the new one."""
        versions = await self._versions()
        old = next(version for version, is_default in versions.items() if is_default)
        for leftover in versions.keys() - {old}:  # of a replacement that was cut short
            await self._ask("DELETE", f"/{MODEL_NAME}/{leftover}")
        new = next(version for version in self._archives if version != old)
        archive = self._archives[new]
        await self._ask("POST", f"?url={archive}&initial_workers=1&synchronous=true")
        await self._ask("PUT", f"/{MODEL_NAME}/{new}?min_worker={workers}&max_worker={workers}")
        await self._until_ready(f"{MODEL_NAME}/{new}", workers)
        await self._ask("PUT", f"/{MODEL_NAME}/{new}/set-default")
        await self._drain(old)
        await self._ask("DELETE", f"/{MODEL_NAME}/{old}")
        return new

    async def _drain(self, version: str) -> None:
        """Wait until a version that gets no more requests has none left."""
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < _IN_FLIGHT_SECONDS:
            answer = await self._ask("GET", f"/{MODEL_NAME}/{version}")
            if answer[0].get("jobQueueStatus", {}).get("pendingRequests", 0):
                quiet_since = time.monotonic()
            await asyncio.sleep(_POLL_SECONDS)

    async def _versions(self) -> dict[str, bool]:
        """Return which versions are registered, and whether each is the default."""
        default = (await self._ask("GET", f"/{MODEL_NAME}"))[0]["modelVersion"]
        everything = await self._ask("GET", f"/{MODEL_NAME}/all")
        return {item["modelVersion"]: item["modelVersion"] == default for item in everything}

    async def _until_ready(self, model: str, workers: int) -> None:
        while True:
            answer = await self._ask("GET", f"/{model}")
            if sum(worker["status"] == "READY" for worker in answer[0]["workers"]) == workers:
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def _ask(self, method: str, path: str) -> Any:  # noqa: ANN401 - JSON
        try:
            async with self._session.request(method, self._models + path) as response:
                answer = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ManagementError(f"{method} {path}: {error!r}") from error
        if response.status == 405:
            raise ManagementError(f"{method} {path} is closed: start with TS_ENABLE_MODEL_API=true")
        if response.status >= 400:
            raise ManagementError(f"{method} {path}: {response.status} {answer[:300]!r}")
        return json.loads(answer)
