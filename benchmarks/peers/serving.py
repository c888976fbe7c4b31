"""What both FastAPI peers share: the request, the network, and a free port."""

import socket
import sys
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from torch import nn

from handler.network import build

FEATURES = 3
WINDOW_SECONDS = 300.0


class Event(BaseModel):
    """One event; `timestamp` in UNIX epoch seconds."""

    user_id: str
    timestamp: float
    features: list[float]


class Events(BaseModel):
    """The body of `POST /ingest`."""

    events: list[Event]


def load_network(weights: Path) -> nn.Module:
    """Return the default network with the weights that medianserve serves."""
    torch.set_num_threads(1)  # more would fight with each other over so small a network
    network = build(FEATURES)
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval()


def serve(app: FastAPI) -> None:
    """Serve on a free port of loopback until killed; the first line printed is the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        print(f"http://{host}:{port}", flush=True)
        config = uvicorn.Config(app, log_level="warning", access_log=False)
        uvicorn.Server(config).run(sockets=[listener])


def weights_argument() -> Path:
    """Return the one argument: the file of weights."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.peers.NAME WEIGHTS")
    return Path(sys.argv[1])
