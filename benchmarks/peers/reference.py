"""The design most would draw first: `python -m benchmarks.peers.reference WEIGHTS`.

Each event is scored by a call of its own in the thread pool and appended to its user's deque; a
question drops what is old and sorts the rest. Nothing survives a restart.
"""

import statistics
import time
from collections import defaultdict, deque
from pathlib import Path

import torch
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool

from benchmarks.peers.serving import (
    WINDOW_SECONDS,
    Events,
    load_network,
    serve,
    weights_argument,
)


def create_app(weights: Path) -> FastAPI:
    """Return the service."""
    app = FastAPI()
    network = load_network(weights)
    windows: defaultdict[str, deque[tuple[float, float]]] = defaultdict(deque)
    accepted = 0

    def score(features: list[float]) -> float:
        with torch.inference_mode():
            return float(network(torch.tensor([features])).item())

    def drop_old(window: deque[tuple[float, float]]) -> None:
        oldest = time.time() - WINDOW_SECONDS
        while window and window[0][0] < oldest:
            window.popleft()

    @app.post("/ingest")
    async def ingest(request: Events) -> dict[str, int]:
        nonlocal accepted
        for event in request.events:
            value = await run_in_threadpool(score, event.features)
            window = windows[event.user_id]
            window.append((event.timestamp, value))
            drop_old(window)
            accepted += 1
        return {"processed": len(request.events)}

    @app.get("/users/{user_id}/median")
    async def median(user_id: str) -> dict[str, float | None]:
        window = windows.get(user_id, deque())
        drop_old(window)
        scores = [value for _, value in window]
        return {"median": statistics.median(scores) if scores else None}

    @app.get("/stats")
    async def stats() -> dict[str, int]:
        return {"accepted": accepted}

    return app


if __name__ == "__main__":
    serve(create_app(weights_argument()))
