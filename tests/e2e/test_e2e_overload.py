"""More than the scorer can take: the excess gets a quick 503; nothing is lost or counted twice."""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import urllib3
import yaml

from handler.archive import build_archive
from handler.default_model import default_weights
from tests.running_stack import EVENT_HEADERS, READY, ROOT

if TYPE_CHECKING:
    from tests.running_stack import RunningStack

CLIENTS, QUEUE, EVENTS = 48, 8, 500


@pytest.fixture
def narrow_stack(start_stack: Callable[..., "RunningStack"], tmp_path: Path) -> "RunningStack":
    """Start a stack whose queue is far shorter than the clients are many."""
    config = yaml.safe_load((ROOT / "handler/model-config.yaml").read_text())
    config |= {"jobQueueSize": QUEUE, "batchSize": 2}
    (tmp_path / "narrow.yaml").write_text(yaml.safe_dump(config))
    build_archive(
        tmp_path / "store" / "scorer.mar",
        default_weights(),
        tmp_path / "narrow.yaml",
    )
    stack = start_stack(TS_MODEL_STORE=str(tmp_path / "store"))
    stack.wait_for_line(READY)
    return stack


def _request(number: int) -> tuple[str, bytes]:
    user = f"crowd-{number % 50}"
    now = time.time()
    events = [
        {"user_id": user, "timestamp": now, "features": [random.random() for _ in range(3)]}
        for _ in range(EVENTS)
    ]
    return user, json.dumps({"events": events}).encode()


def test_beyond_the_queue_a_503_and_a_repeat_counts_once(narrow_stack: "RunningStack") -> None:
    """Clients repeat what got 503 under its key until it is stored, as the README tells them."""
    pool = urllib3.PoolManager(maxsize=CLIENTS, retries=False, timeout=urllib3.Timeout(total=30))
    statuses: Counter[int] = Counter()
    stored: Counter[str] = Counter()
    counting = threading.Lock()

    def client(number: int) -> None:
        for turn in range(4):
            user, body = _request(number)
            headers = {**EVENT_HEADERS, "Idempotency-Key": f"overload-{number}-{turn}"}
            while True:
                answer = pool.request(
                    "POST",
                    narrow_stack.url(8080, "/predictions/scorer"),
                    body=body,
                    headers=headers,
                )
                with counting:
                    statuses[answer.status] += 1
                if answer.status == 200:
                    break
                assert answer.status == 503, answer.data
                time.sleep(random.uniform(0.05, 0.3))
            with counting:
                stored[user] += answer.json()["processed"]

    def watch(done: threading.Event) -> list[tuple[str, Any]]:
        """Ask for health all the while."""
        seen = []
        while not done.wait(0.1):
            for port, path in ((8080, "/ping"), (8090, "/healthz"), (8090, "/readyz")):
                response = pool.request("GET", narrow_stack.url(port, path), timeout=10)
                seen.append((path, response.status))
        return seen

    done = threading.Event()
    with ThreadPoolExecutor(CLIENTS + 1) as executor:
        health = executor.submit(watch, done)
        crowd = [executor.submit(client, number) for number in range(CLIENTS)]
        for each in crowd:
            each.result(timeout=100)
        done.set()
        assert {status for _, status in health.result(timeout=30)} == {200}
    assert statuses[200] == CLIENTS * 4
    assert statuses[503] > 0, "the queue was never full: the test shows nothing"
    users = sorted(stored)
    answer = pool.request(
        "POST", narrow_stack.url(8090, "/medians"), body=json.dumps({"user_ids": users})
    )
    assert {item["user_id"]: item["count"] for item in answer.json()["items"]} == stored
    assert narrow_stack.get("/stats")["accepted"] == CLIENTS * 4 * EVENTS
    pool.clear()
