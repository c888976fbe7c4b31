"""Hostile requests at the real scorer, with the state service behind it."""

import asyncio
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fuzzing.campaign import Report, attack, sendings
from fuzzing.judging import log_faults
from fuzzing.neighbour import Watch, neighbour

if TYPE_CHECKING:
    from tests.running_stack import RunningStack

REQUESTS = 900


async def _attack(scorer: str, state: str) -> tuple[Report, Watch]:
    where = urlsplit(scorer)
    assert where.hostname
    assert where.port
    async with neighbour(scorer, state) as watch:
        what = sendings("scorer", REQUESTS, 1, time.time(), by_hand_too=False)
        return await attack("scorer", (where.hostname, where.port), what), watch


def test_no_request_does_harm_and_a_good_client_beside_them_is_answered_exactly(
    stack: "RunningStack",
) -> None:
    workers = [worker["pid"] for worker in stack.workers()]
    logs = [stack.var / "log" / f"{name}.log" for name in ("state-service", "torchserve")]
    before = [log.stat().st_size for log in logs]  # what other tests have provoked
    report, watch = asyncio.run(_attack(stack.url(8080, ""), stack.url(8090, "")))
    assert report.sent == REQUESTS
    assert [fault for fault in report.faults if fault.ours] == []
    assert watch.faults == []
    assert watch.rounds > 0
    assert report.answers["handler 200"] > 50
    assert report.answers["handler 400"] > 50
    assert [worker["pid"] for worker in stack.workers()] == workers
    for log, begin in zip(logs, before, strict=True):
        text = log.read_bytes()[begin:].decode(errors="replace")
        json_lines = log.stem == "state-service"
        assert list(log_faults(text.splitlines(), json_lines=json_lines)) == [], log
