"""The reference, rewritten for speed: `python -m benchmarks.peers.rewrite WEIGHTS`.

One model call a request, and a sorted list of scores a user, so that a median is a look at the
middle. What is old is dropped when its user is next heard of or asked for. Nothing survives a
restart.
"""

import heapq
import time
from collections import defaultdict
from pathlib import Path

import torch
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from sortedcontainers import SortedList

from benchmarks.peers.serving import (
    WINDOW_SECONDS,
    Events,
    load_network,
    serve,
    weights_argument,
)


class Window:
    """One user's scores, sorted, and a heap of what expires when."""

    __slots__ = ("expiring", "scores")

    def __init__(self) -> None:
        self.scores = SortedList()
        self.expiring: list[tuple[float, float]] = []

    def add(self, timestamp: float, score: float) -> None:
        """Take one score."""
        self.scores.add(score)
        heapq.heappush(self.expiring, (timestamp, score))

    def drop_old(self, now: float) -> None:
        """Forget what has left the window by now."""
        while self.expiring and self.expiring[0][0] < now - WINDOW_SECONDS:
            self.scores.remove(heapq.heappop(self.expiring)[1])

    def median(self) -> float | None:
        """Return the middle score, or the mean of the two; None of none."""
        count = len(self.scores)
        if not count:
            return None
        low, high = self.scores[(count - 1) // 2], self.scores[count // 2]
        return float(low + high) / 2


def create_app(weights: Path) -> FastAPI:
    """Return the service."""
    app = FastAPI()
    network = load_network(weights)
    windows: defaultdict[str, Window] = defaultdict(Window)
    accepted = 0

    def score(features: list[list[float]]) -> list[float]:
        with torch.inference_mode():
            scores: list[float] = network(torch.tensor(features)).reshape(-1).tolist()
        return scores

    @app.post("/ingest")
    async def ingest(request: Events) -> dict[str, int]:
        nonlocal accepted
        scores = await run_in_threadpool(score, [event.features for event in request.events])
        now = time.time()
        for event, value in zip(request.events, scores, strict=True):
            window = windows[event.user_id]
            window.add(event.timestamp, value)
            window.drop_old(now)
        accepted += len(scores)
        return {"processed": len(scores)}

    @app.get("/users/{user_id}/median")
    async def median(user_id: str) -> dict[str, float | None]:
        window = windows.get(user_id)
        if window is None:
            return {"median": None}
        window.drop_old(time.time())
        return {"median": window.median()}

    @app.get("/stats")
    async def stats() -> dict[str, int]:
        return {"accepted": accepted}

    return app


if __name__ == "__main__":
    serve(create_app(weights_argument()))
