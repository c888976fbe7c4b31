"""How TorchServe is, as it says itself: for the live page, which has no other way to know.

The state service works without TorchServe, so nothing here is waited for by anything else, nothing
fails loudly, and whatever comes back is a status that says what was found.
"""

import asyncio
import os
import time
from typing import Self

import aiohttp
import msgspec
from msgspec.structs import replace
from yarl import URL

from state_service.overview import TorchServeStatus
from state_service.settings import Settings

_TIMEOUT_SECONDS = 1.0
_DEFAULT_PORT = 8080
_KEPT_SECONDS = 1.0
_MAX_ANSWER_BYTES = 1 << 20


class _Worker(msgspec.Struct):
    status: str = ""


class _Queue(msgspec.Struct, frozen=True, rename="camel"):
    pending_requests: int | None = None
    remaining_capacity: int | None = None


class _Model(msgspec.Struct, rename="camel"):
    model_version: str
    workers: list[_Worker] = []
    job_queue_status: _Queue = _Queue()


class _Ping(msgspec.Struct):
    status: str


_decode_models = msgspec.json.Decoder(list[_Model]).decode
_decode_ping = msgspec.json.Decoder(_Ping).decode
_NOT_HTTP_OR_NOT_JSON = (aiohttp.ClientError, TimeoutError, OSError, ValueError)


class TorchServe:
    """Asks one TorchServe, at most once a second however many want to know."""

    def __init__(self, settings: Settings) -> None:
        self._ping_url = _joined(settings.torchserve_url, "/ping")
        self._model_url = _joined(settings.management_url, "/models/scorer")
        self._port = URL(settings.torchserve_url).port or _DEFAULT_PORT
        self._session: aiohttp.ClientSession | None = None
        self._asking = asyncio.Lock()
        self._asked_at = -_KEPT_SECONDS
        self._status = TorchServeStatus()

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
        self._session = aiohttp.ClientSession(timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def status(self) -> TorchServeStatus:
        """Return the status of now, or of a second ago; takes two timeouts at most."""
        async with self._asking:
            if time.monotonic() - self._asked_at >= _KEPT_SECONDS:
                self._status = replace(await self._ask(), port=self._port)
                self._asked_at = time.monotonic()
            return self._status

    async def _ask(self) -> TorchServeStatus:
        if not (self._ping_url or self._model_url):
            return TorchServeStatus()
        try:
            if self._ping_url:
                answer = _decode_ping(await self._get(self._ping_url)).status
                if answer != "Healthy":
                    return TorchServeStatus(state="unhealthy", detail=f"it says {answer[:100]}")
            if self._model_url:
                return _of_models(_decode_models(await self._get(self._model_url)))
            return TorchServeStatus(state="healthy")
        except _NOT_HTTP_OR_NOT_JSON as error:
            return TorchServeStatus(state="away", detail=_in_words(error))

    async def _get(self, url: str) -> bytes:
        assert self._session is not None
        async with self._session.get(url, allow_redirects=False) as answer:
            body = await answer.content.read(_MAX_ANSWER_BYTES)
            if answer.status != 200:
                raise ValueError(f"it answers {answer.status}")
            while not answer.content.at_eof():
                body += await answer.content.read(_MAX_ANSWER_BYTES)
                if len(body) > _MAX_ANSWER_BYTES:
                    raise ValueError("its answer has no end")
            return body


def _joined(url: str, path: str) -> str:
    return url.rstrip("/") + path if url else ""


def _of_models(models: list[_Model]) -> TorchServeStatus:
    """Describe the default version of the model, the only one that is answered."""
    if not models:
        return TorchServeStatus(state="unhealthy", detail="it has no model scorer")
    model = models[0]
    ready = sum(worker.status == "READY" for worker in model.workers)
    return TorchServeStatus(
        state="healthy" if ready else "unhealthy",
        detail=None if ready else "no worker is ready",
        version=model.model_version,
        workers=len(model.workers),
        workers_ready=ready,
        queue_pending=model.job_queue_status.pending_requests,
        queue_room=model.job_queue_status.remaining_capacity,
    )


def _in_words(error: Exception) -> str:
    """Say in a few words what went wrong; addresses are nobody's business."""
    if isinstance(error, TimeoutError):
        return f"no answer within {_TIMEOUT_SECONDS:g} s"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno  # its text has the address in it
        return os.strerror(number).lower() if number else "it cannot be reached"
    if isinstance(error, msgspec.DecodeError):
        return "its answer is not TorchServe's"
    if isinstance(error, ValueError) and not isinstance(error, aiohttp.ClientError):
        return str(error)
    return "the connection broke off"
