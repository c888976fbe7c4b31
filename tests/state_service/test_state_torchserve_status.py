"""TorchServe is asked politely, and whatever it answers is a status."""

import asyncio
from pathlib import Path

import pytest

from state_service.settings import Settings
from state_service.torchserve_status import TorchServe
from tests.state_service.torchserve_fake import torchserve


def settings(url: str) -> Settings:
    return Settings(torchserve_url=url, management_url=f"{url}/")


async def test_workers_queue_and_version_are_those_of_the_management_api() -> None:
    async with torchserve() as fake, TorchServe(settings(fake.url)) as asker:
        fake.worker_states = ["READY", "UNLOADED", "READY"]
        status = await asker.status()
    assert (status.state, status.workers, status.workers_ready) == ("healthy", 3, 2)
    assert (status.version, status.queue_pending, status.queue_room) == ("1.0", 3, 997)


async def test_however_many_ask_it_is_asked_once_a_second() -> None:
    async with torchserve() as fake, TorchServe(settings(fake.url)) as asker:
        fake.delay_seconds = 0.1
        found = await asyncio.gather(*[asker.status() for _ in range(50)])
        assert fake.asked == 1
    assert {status.state for status in found} == {"healthy"}


async def test_without_an_address_nothing_is_asked() -> None:
    async with TorchServe(Settings()) as asker:
        assert (await asker.status()).state == "not_asked"


async def test_the_inference_address_alone_tells_whether_it_lives() -> None:
    async with torchserve() as fake, TorchServe(Settings(torchserve_url=fake.url)) as asker:
        status = await asker.status()
        assert (status.state, status.workers) == ("healthy", None)
        assert fake.asked == 0


@pytest.mark.parametrize(
    ("changes", "state", "detail"),
    [
        ({"ping": "Unhealthy"}, "unhealthy", "it says Unhealthy"),
        ({"worker_states": []}, "unhealthy", "no worker is ready"),
        ({"body": b"[]"}, "unhealthy", "it has no model scorer"),
        ({"status": 401, "body": b"{}"}, "away", "it answers 401"),
        ({"body": b"<html>"}, "away", "its answer is not TorchServe's"),
        ({"body": b'[{"modelVersion": 5}]'}, "away", "its answer is not TorchServe's"),
        ({"body": b" " * (1 << 21)}, "away", "its answer has no end"),
        ({"delay_seconds": 3.0}, "away", "no answer within 1 s"),
    ],
)
async def test_every_trouble_is_a_status_with_a_reason(
    changes: dict[str, object], state: str, detail: str
) -> None:
    async with torchserve() as fake, TorchServe(settings(fake.url)) as asker:
        for name, value in changes.items():
            setattr(fake, name, value)
        status = await asker.status()
    assert (status.state, status.detail) == (state, detail)


async def test_a_torchserve_that_is_not_there_is_away(tmp_path: Path) -> None:
    async with torchserve() as fake:
        url = fake.url
    async with TorchServe(settings(url)) as asker:
        status = await asker.status()
    assert (status.state, status.detail) == ("away", "connection refused")
