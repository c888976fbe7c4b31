"""`/stats` tells which models have scored, as the handlers say."""

from pathlib import Path
from typing import Any

import pytest

from state_service.models import MAX_MODELS, Models
from state_service.wire import ModelReport
from tests.state_service.state_support import batch, serving

MODEL: dict[str, Any] = {
    "name": "scorer",
    "version": "1.0",
    "features": 3,
    "weights": "my.pt",
    "weights_sha256": "0123456789ab",
}


async def test_each_model_s_events_are_counted_once_and_the_last_to_score_is_first(
    tmp_path: Path,
) -> None:
    second = {**MODEL, "version": "2.0"}
    async with serving(tmp_path) as server:
        assert (await server.get("/stats"))["models"] == []
        first_batch = batch("a", ["u", "v"], [1, 2])
        await server.post("/scores", {"batches": [first_batch], "model": MODEL})
        await server.post("/scores", {"batches": [batch("b", ["u"], [1])], "model": second})
        await server.post("/scores", {"batches": [batch("c", ["u"], [1])]})  # nobody says
        models = (await server.get("/stats"))["models"]
        assert [(model["version"], model["events"]) for model in models] == [("2.0", 1), ("1.0", 2)]
        assert MODEL.items() <= models[1].items()
        await server.post("/scores", {"batches": [first_batch], "model": MODEL})
        models = (await server.get("/stats"))["models"]
        assert [(model["version"], model["events"]) for model in models] == [("1.0", 2), ("2.0", 1)]
        assert models[0]["last_at"] >= models[1]["last_at"]


@pytest.mark.parametrize(
    "change",
    [{"name": ""}, {"features": 0}, {"weights_sha256": "0123"}, {"weights": "w" * 257}],
)
async def test_a_model_that_cannot_be_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    async with serving(tmp_path) as server:
        body = {"batches": [batch("a", ["u"], [1])], "model": {**MODEL, **change}}
        problem = await server.problem("POST", "/scores", 400, "invalid_request", json=body)
        assert f"model.{next(iter(change))}" in problem.body["detail"]
        assert (await server.get("/stats"))["events_processed"] == 0


def test_models_without_end_are_forgotten_the_most_silent_first() -> None:
    models = Models()
    for number in range(MAX_MODELS):
        models.add(ModelReport("scorer", str(number), 3, "my.pt", "0123456789ab"), 1, number)
    models.add(ModelReport("scorer", "0", 3, "my.pt", "0123456789ab"), 1, 100.0)
    models.add(ModelReport("scorer", "new", 3, "my.pt", "0123456789ab"), 1, 101.0)
    versions = [model["version"] for model in models.summary()]
    assert len(versions) == MAX_MODELS
    assert versions[:2] == ["new", "0"]
    assert "1" not in versions
