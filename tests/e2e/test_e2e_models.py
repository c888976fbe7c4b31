"""Which model scores can be seen, and nothing but a prediction is counted."""

import json
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml

from handler.archive import build_archive
from handler.default_model import default_store
from handler.packing import identity_of
from tests.running_stack import EVENT_HEADERS, READY, ROOT

if TYPE_CHECKING:
    from tests.running_stack import RunningStack

NETWORK = "from torch import nn\n\n\ndef build(features):\n    return nn.Linear(features, 1)\n"


def one_event(user_id: str, features: list[Any]) -> bytes:
    return json.dumps(
        [{"user_id": user_id, "timestamp": time.time(), "features": features}]
    ).encode()


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/explanations/scorer/1.0"), ("PUT", "/explanations/scorer")],
)
def test_an_explanation_is_refused_in_words_and_counts_nothing(
    stack: "RunningStack", method: str, path: str
) -> None:
    user = f"explained{path.replace('/', '-')}-{method}"
    body = one_event(user, [1, 2, 3])
    answer = stack.http.request(method, stack.url(8080, path), body=body, headers=EVENT_HEADERS)
    assert (answer.status, answer.json()["code"]) == (400, "no_explanations")
    assert stack.get(f"/users/{user}/median")["count"] == 0


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
def test_a_request_without_a_body_counts_nothing(stack: "RunningStack", method: str) -> None:
    before = stack.get("/stats")["ingest_requests"]
    url = stack.url(8080, f"/predictions/scorer?body={one_event('q', [1, 2, 3]).decode()}")
    answer = stack.http.request(method, url)
    assert answer.status == (200 if method == "OPTIONS" else 400)
    assert stack.get("/stats")["ingest_requests"] == before
    assert stack.get("/users/q/median")["count"] == 0


def test_torchserve_tells_which_model_it_serves(stack: "RunningStack") -> None:
    model = identity_of(default_store() / "scorer.mar")
    for path in ("/models/scorer?customized=true", "/models/scorer/1.0?customized=true"):
        answer = stack.http.request("GET", stack.url(8081, path))
        assert answer.status == 200
        assert answer.json()[0]["customizedMetadata"] == {
            "name": "scorer",
            "version": "1.0",
            "features": 3,
            "weights": "inefficient_model.pt",
            "weights_sha256": model.weights_sha256,
        }
    assert any(str(model) in line for line in stack.output)


@pytest.fixture
def two_versions(tmp_path: Path) -> Path:
    """Pack a model of two named features as version 1.0 and, with other weights, as 2.0."""
    (tmp_path / "own_network.py").write_text(NETWORK)
    shipped = yaml.safe_load((ROOT / "handler" / "model-config.yaml").read_text())
    handler = {"factory": "own_network:build", "features": ["age", "amount"], "weights": "own.pt"}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**shipped, "handler": handler}))
    for seed, version in ((1, "1.0"), (2, "2.0")):
        torch.manual_seed(seed)
        torch.save(torch.nn.Linear(2, 1).state_dict(), tmp_path / "own.pt")
        build_archive(
            tmp_path / f"store-{version}" / "scorer.mar",
            config=tmp_path / "own.yaml",
            include=[tmp_path / "own_network.py"],
            version=version,
        )
    return tmp_path


def test_two_versions_side_by_side_are_told_apart_and_bodies_arrive_raw(
    start_stack: Callable[..., "RunningStack"], two_versions: Path
) -> None:
    stack = start_stack(
        two_versions / "var",
        TS_MODEL_STORE=str(two_versions / "store-1.0"),
        TS_ENABLE_MODEL_API="true",
        TS_DECODE_INPUT_REQUEST="true",  # TorchServe's default; a worker of ours knows better
    )
    stack.wait_for_line(READY)
    second = two_versions / "store-2.0" / "scorer.mar"
    shutil.copy(second, two_versions / "var" / "model_store" / "second.mar")
    registered = stack.http.request(
        "POST",
        stack.url(8081, "/models?url=second.mar&initial_workers=1&synchronous=true"),
        timeout=60,
    )
    assert registered.status == 200, registered.data
    for version, count in (("1.0", 2), ("2.0", 1)):
        for _ in range(count):
            answer = stack.http.request(
                "POST",
                stack.url(8080, f"/predictions/scorer/{version}"),
                body=one_event("ann", [1.5, 2]),
                headers=EVENT_HEADERS,
            )
            assert answer.json()["recorded"] == "stored", answer.data
    models = stack.get("/stats")["models"]
    assert [(model["version"], model["events"]) for model in models] == [("2.0", 1), ("1.0", 2)]
    for model in models:
        packed = identity_of(two_versions / f"store-{model['version']}" / "scorer.mar")
        assert model["weights_sha256"] == packed.weights_sha256
    assert models[0]["weights_sha256"] != models[1]["weights_sha256"]
    told = stack.http.request("GET", stack.url(8081, "/models/scorer/2.0?customized=true")).json()
    assert told[0]["customizedMetadata"]["feature_names"] == ["age", "amount"]
    assert stack.get("/users/ann/median")["count"] == 3


@pytest.mark.parametrize("envelope", ["kserve", "kservev2", "json", "body"])
def test_an_envelope_is_refused_when_the_model_is_loaded(tmp_path: Path, envelope: str) -> None:
    with zipfile.ZipFile(default_store() / "scorer.mar") as archive:
        archive.extractall(tmp_path)
    loading = (
        "import sys; sys.path.insert(0, '.')\n"
        "from ts.model_loader import TsModelLoader\n"
        f"TsModelLoader().load('scorer', '.', 'scorer_handler.py', None, 1, {envelope!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", loading], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"service_envelope is '{envelope}'" in done.stderr
    assert "leave service_envelope out of config.properties" in done.stderr


@pytest.mark.parametrize("by", ["property", "variable"])
def test_an_envelope_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    config = tmp_path / "config.properties"
    config.write_text("model_store=model_store\n")
    if by == "property":
        config.write_text("model_store=model_store\nservice_envelope=kserve\n")
    else:
        monkeypatch.setenv("TS_SERVICE_ENVELOPE", "kserve")
    command = [sys.executable, "-m", "stack.torchserve", "--config", str(config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: service_envelope=kserve takes requests and answers apart")
