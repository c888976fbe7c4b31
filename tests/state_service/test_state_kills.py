"""kill -9 at any moment: what was acknowledged is there once, what was not is there once or not.

An oracle remembers every batch that was sent and whether it was acknowledged. After each kill the
service starts again on the same file and every user's answers are compared with the oracle's, to
the last bit.
"""

import asyncio
import random
import signal
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from tests.state_service.state_killed import POINTS
from tests.state_service.state_support import Client, ServiceProcess, launched

USERS = [f"user {number}" for number in range(12)]
OFTEN = ("--snapshot-interval-seconds", "0.01")
CLIENTS = 6


def _scores(generator: random.Random) -> float:
    return generator.choice([0.0, -0.0, 0.5, 1e300, -1e300, 5e-324, generator.gauss(0, 1)])


@dataclass
class Oracle:
    """Every batch ever sent, by key, and what is known about it."""

    generator: random.Random
    now: float = field(default_factory=time.time)
    sent: dict[str, dict[str, Any]] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)

    def new_batch(self) -> dict[str, Any]:
        """Return a batch for some users, with its mark first, in the middle and last."""
        key = f"batch {len(self.sent)}"
        users = [self.generator.choice(USERS) for _ in range(self.generator.randrange(40))]
        names = [key, *users, key, *users[::2], key]
        body = {
            "key": key,
            "user_id": names,
            "timestamp": [self.now - self.generator.random() * 30 for _ in names],
            "score": [_scores(self.generator) for _ in names],
        }
        self.sent[key] = body
        return body

    async def check(self, client: Client) -> None:
        """Compare every batch and every user with what the service answers."""
        keys = list(self.sent)
        marks = await client.post("/medians", {"user_ids": keys}) if keys else {"items": []}
        counts = {item["user_id"]: item["count"] for item in marks["items"]}
        assert set(counts.values()) <= {0, 3}, "no batch is there in part or twice"
        present = {key for key, count in counts.items() if count}
        assert self.acknowledged <= present, "what was acknowledged is there"
        self.acknowledged |= present  # it must not vanish later either
        events = defaultdict(list)
        for key in present:
            body = self.sent[key]
            for row in zip(body["user_id"], body["timestamp"], body["score"], strict=True):
                events[row[0]].append(row[1:])
        for user in USERS:
            answer = await client.get(f"/users/{user.replace(' ', '%20')}/stats?q=0.1,0.9")
            assert answer["count"] == len(events[user])
            if not events[user]:
                continue
            timestamps, scores = np.array(events[user]).T
            low, high = np.partition(scores, [(len(scores) - 1) // 2, len(scores) // 2])[
                [(len(scores) - 1) // 2, len(scores) // 2]
            ]
            assert answer["median"] == low / 2 + high / 2 or answer["median"] == (low + high) / 2
            assert (answer["min"], answer["max"]) == (scores.min(), scores.max())
            assert answer["newest_timestamp"] == timestamps.max()
            with np.errstate(over="ignore"):
                quantiles = np.quantile(scores, [0.1, 0.9]).tolist()
            if np.isfinite(quantiles).all():
                assert [item["value"] for item in answer["quantiles"]] == quantiles

    async def send_again(self, client: Client) -> None:
        """Send everything that was never acknowledged, under its old key, and some that was."""
        again = [body for key, body in self.sent.items() if key not in self.acknowledged]
        again += self.generator.sample(list(self.sent.values()), min(20, len(self.sent)))
        for body in again:
            await client.record(body)
            self.acknowledged.add(body["key"])


async def _send_until_it_dies(oracle: Oracle, process: ServiceProcess) -> None:
    """Post batches from several clients, as fast as answers come."""

    async def client() -> None:
        while True:
            body = oracle.new_batch()
            answer = await process.ask("POST", "/scores", json={"batches": [body]})
            assert answer.status == 200
            oracle.acknowledged.add(body["key"])

    ended = await asyncio.gather(*(client() for _ in range(CLIENTS)), return_exceptions=True)
    assert all(isinstance(error, aiohttp.ClientError) for error in ended), ended


async def _check_and_send_again(oracle: Oracle, process: ServiceProcess) -> None:
    restored = (await process.get("/stats"))["restore"]
    assert restored["damaged_blocks"] == restored["damaged_journal_rows"] == 0
    await oracle.check(process)
    await oracle.send_again(process)
    await oracle.check(process)
    assert oracle.acknowledged == set(oracle.sent)


async def test_a_kill_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    generator = random.Random(4)
    oracle = Oracle(generator)
    for _ in range(7):
        async with launched(tmp_path, *OFTEN) as process:
            await _check_and_send_again(oracle, process)
            sending = asyncio.create_task(_send_until_it_dies(oracle, process))
            await asyncio.sleep(generator.uniform(0.001, 0.3))
            assert (await process.stop(signal.SIGKILL))[0] == -signal.SIGKILL
            await sending
    async with launched(tmp_path) as process:
        await _check_and_send_again(oracle, process)
        assert len(oracle.sent) > 100


@pytest.mark.parametrize("point", POINTS)
async def test_a_kill_between_two_steps_loses_nothing_that_was_acknowledged(
    tmp_path: Path, point: str
) -> None:
    generator = random.Random(point)
    oracle = Oracle(generator)
    for _ in range(2):
        count = str(generator.randrange(1, 60 if point in ("committed", "wrote") else 8))
        program = ("-m", "tests.state_service.state_killed", point, count)
        async with launched(tmp_path, *OFTEN, program=program) as process:
            await _send_until_it_dies(oracle, process)
            assert await process.process.wait() == -signal.SIGKILL
        async with launched(tmp_path) as process:
            await _check_and_send_again(oracle, process)
            await process.stop(signal.SIGKILL)


async def test_a_kill_with_snapshots_only_loses_events_and_keys_together(tmp_path: Path) -> None:
    generator = random.Random(5)
    oracle = Oracle(generator)
    mode = ("--durability", "snapshot")
    for _ in range(4):
        async with launched(tmp_path, *OFTEN, *mode) as process:
            oracle.acknowledged.clear()  # may be lost: that is what the mode means
            await oracle.check(process)
            await oracle.send_again(process)
            await oracle.check(process)
            sending = asyncio.create_task(_send_until_it_dies(oracle, process))
            await asyncio.sleep(generator.uniform(0.001, 0.3))
            await process.stop(signal.SIGKILL)
            await sending


async def test_durabilities_may_change_from_start_to_start(tmp_path: Path) -> None:
    generator = random.Random(6)
    oracle = Oracle(generator)
    for mode in ("journal", "snapshot", "full", "snapshot", "journal"):
        async with launched(tmp_path, "--durability", mode) as process:
            await _check_and_send_again(oracle, process)
            await process.record(*(oracle.new_batch() for _ in range(5)))
            oracle.acknowledged |= set(oracle.sent)
            if mode == "snapshot":
                assert (await process.stop(signal.SIGTERM))[0] == 0
            else:
                await process.stop(signal.SIGKILL)
