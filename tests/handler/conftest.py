"""Pipelines on a real state service."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import urllib3

from handler.pipeline import Pipeline
from handler.scoring import Scorer
from handler.settings import HandlerSettings
from tests.handler.pipeline_support import CountingClient, CountingNetwork


@pytest.fixture
def network() -> CountingNetwork:
    return CountingNetwork()


@pytest.fixture
def client(state_url: str) -> Iterator[CountingClient]:
    client = CountingClient(state_url)
    yield client
    client.close()


@pytest.fixture
def pipeline(network: CountingNetwork, client: CountingClient) -> Pipeline:
    pipeline = Pipeline(HandlerSettings(), Scorer(network, 3, torch.device("cpu")), client)
    network.forwards.clear()  # the check at load is not counted
    return pipeline


@pytest.fixture
def median(state_url: str) -> Callable[[str], Any]:
    def ask(user_id: str) -> Any:
        response = urllib3.request("GET", f"{state_url}/users/{user_id}/median")
        assert response.status == 200
        return response.json()

    return ask
