"""A pipeline's parts that count what they are asked, and requests for it."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from handler.answering import Answer
from handler.batches import Batch, BatchResult
from handler.create_model import create_state_dict
from handler.network import build
from handler.reading import Request
from handler.recording import StateClient

UNREACHABLE = "http://127.0.0.1:9"  # the discard port: refused at once


class CountingNetwork(nn.Module):
    """The default network, counting forwards and the events in each."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = build(3)
        self.inner.load_state_dict(create_state_dict())
        self.forwards: list[int] = []

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        self.forwards.append(len(features))
        scores: torch.Tensor = self.inner(features)
        return scores


class CountingClient(StateClient):
    """The real client, counting calls and the batches in each."""

    def __init__(self, url: str, token: str | None = None) -> None:
        super().__init__(url, token)
        self.calls: list[int] = []

    def record(
        self,
        batches: Sequence[Batch],
        timeout_seconds: float,
        stages: Mapping[str, Sequence[float]] | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> list[BatchResult]:
        self.calls.append(len(batches))
        return super().record(batches, timeout_seconds, stages, meanwhile)


def event(user_id: str = "user-1", **changes: Any) -> dict[str, Any]:
    return {"user_id": user_id, "timestamp": time.time(), "features": [0.1, 0.2, 0.3], **changes}


def request(*events: Any, **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps({"events": events}).encode()
    return Request(body, {"content-type": "application/json", **named})


def body_of(answer: Answer) -> Any:
    return json.loads(answer.body)
