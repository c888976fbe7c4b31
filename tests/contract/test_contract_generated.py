"""A client that is generated from the contract speaks to what runs."""

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tests.contract.contract_support import SPEC, operations
from tests.running_stack import RunningStack

PACKAGE = "generated_client"
USER = "of-the-generated-client"
# What the generator can only leave out: bodies that no JSON schema describes.
NOT_GENERATED = {
    "application/x-ndjson",
    "application/vnd.apache.arrow.stream",
    "application/msgpack",
}


class GeneratedClient:
    """The generated package, with one client for each of the two servers."""

    def __init__(self, stack: RunningStack) -> None:
        client: Any = importlib.import_module(PACKAGE)
        self.state = client.AuthenticatedClient(stack.url(8090, ""), token="not-asked-for")
        self.scorer = client.AuthenticatedClient(stack.url(8080, ""), token="not-asked-for")
        self.models: Any = importlib.import_module(f"{PACKAGE}.models")
        self.called: set[str] = set()

    def call(self, module: str, *arguments: Any, **options: Any) -> Any:
        """Call an operation; return its answer with `status_code` and `parsed`."""
        self.called.add(module)
        client = self.scorer if module == "scoring.predict" else self.state
        operation: Any = importlib.import_module(f"{PACKAGE}.api.{module}")
        return operation.sync_detailed(*arguments, client=client, **options)


@pytest.fixture(scope="module")
def generated(
    stack: RunningStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GeneratedClient]:
    """Generate the client from the document that the service serves."""
    folder = tmp_path_factory.mktemp("generated")
    document = folder / "openapi.json"
    document.write_bytes(urllib3.request("GET", stack.url(8090, "/openapi.json")).data)
    programs = Path(sys.executable).parent  # it formats what it has written with ruff
    said = subprocess.run(
        [
            programs / "openapi-python-client",
            *("generate", "--path", document, "--meta", "none"),
            *("--output-path", folder / PACKAGE),
        ],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    ).stdout
    complaints = [line for line in said.splitlines() if line.startswith("Unsupported")]
    assert {line.rpartition(" ")[2] for line in complaints} == NOT_GENERATED, said
    assert said.count("WARNING") == len(complaints), said
    sys.path.insert(0, str(folder))
    client = GeneratedClient(stack)
    try:
        yield client
    finally:
        for connections in (client.state, client.scorer):
            connections.get_httpx_client().close()
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]


def _modules() -> set[str]:
    """Return where each operation of the contract is expected in the package."""
    return {
        f"{operation['tags'][0]}."
        + "".join(f"_{c.lower()}" if c.isupper() else c for c in operation["operationId"])
        for _, _, operation in operations()
    }


def test_a_generated_client_calls_every_operation_and_understands_every_answer(
    generated: GeneratedClient,
) -> None:
    models, call, now = generated.models, generated.call, time.time()
    event = models.Event(user_id=USER, timestamp=now, features=[0.1, 0.2, 0.3])
    prediction = call("scoring.predict", body=models.AnObjectWithEvents([event])).parsed
    assert isinstance(prediction, models.Prediction)
    assert prediction.recorded == "stored"
    score = prediction.scores[0]
    dry = models.IngestXDryRun("1")
    handed_on = call("scoring.ingest", body=event, x_dry_run=dry).parsed
    assert (handed_on.recorded, handed_on.scores) == ("dry_run", [score])

    batch = models.Batch(key=f"{USER}-{now}", user_id=[USER], timestamp=[now], score=[score])
    taken = call("recording.record_scores", body=models.ScoresRequest(batches=[batch])).parsed
    assert (taken.accepted, taken.batches[0].duplicate) == (1, False)

    median = call("medians.get_median", USER, window=60.0).parsed
    assert (median.median, median.count, median.window_seconds) == (score, 2, 60.0)
    stats = call("medians.get_user_stats", USER, q=[0.05, 0.95]).parsed
    assert [item.q for item in stats.quantiles] == [0.05, 0.95]
    assert len(call("medians.get_scores", USER, limit=1).parsed.scores) == 1
    assert call("medians.get_users", limit=1).parsed.users >= 1
    question = models.MediansQuestion(user_ids=[USER, "nobody"])
    items = call("medians.get_medians", body=question).parsed.items
    assert [item.count for item in items] == [2, 0]
    assert call("medians.forget_user", USER).parsed.forgotten_events == 2

    assert call("operations.get_stats").parsed.users_forgotten >= 1
    assert call("operations.get_healthz").parsed.status == "alive"
    assert call("operations.get_readyz").parsed.status == "ready"
    snapshot = call("operations.take_snapshot")
    assert (snapshot.status_code, snapshot.parsed.status) in ((202, "started"), (409, 409))
    assert call("operations.get_openapi").parsed.openapi == "3.1.0"
    for page in ("metrics", "docs", "page", "overview"):
        assert isinstance(call(f"operations.get_{page}").parsed, str)
    assert "event: overview" in call("operations.get_events", limit=1).parsed
    assert generated.called == _modules()


def test_a_generated_client_understands_errors(generated: GeneratedClient) -> None:
    models = generated.models
    refused = generated.call("medians.get_median", USER, window=-1.0)
    assert (refused.status_code, refused.parsed.code) == (400, "invalid_request")
    assert "window" in refused.parsed.detail
    events = models.AnObjectWithEvents([])
    refused = generated.call("scoring.predict", body=events, idempotency_key="k" * 129)
    assert (refused.status_code, refused.parsed.code) == (400, "invalid_idempotency_key")


def test_every_model_of_the_contract_is_generated(generated: GeneratedClient) -> None:
    for name, schema in SPEC["components"]["schemas"].items():
        if "anyOf" not in schema:  # a union has no class of its own
            assert hasattr(generated.models, name), name


def test_no_schema_has_what_generators_stumble_over() -> None:
    """A `const` that is no text, a `not`, an `enum` without its type."""

    def walk(node: Any, place: str) -> Iterator[str]:
        if isinstance(node, dict):
            if place.rpartition("/")[2] not in ("properties", "example", "value"):
                if {"const", "not"} & set(node):
                    yield place
                if "enum" in node and "type" not in node:
                    yield place
            for key, value in node.items():
                yield from walk(value, f"{place}/{key}")
        elif isinstance(node, list):
            for index, value in enumerate(node):
                yield from walk(value, f"{place}/{index}")

    assert list(walk(SPEC, "")) == []
