"""What TorchServe's operators rely on, asked of ours and of a plain TorchServe."""

import importlib
import json
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import urllib3
from google.protobuf.empty_pb2 import Empty

from stack.grpc_stubs import write_stubs
from tests.compatibility.cases import (
    ALLOWED,
    DESCRIBED,
    HEALTHY,
    INFERENCE,
    KSERVE,
    MACHINE_METRICS,
    MANAGEMENT,
    METRIC_TYPES,
    METRICS,
    NO_KEY,
    SCALING,
    SCORED,
    VERSIONS,
    Case,
    Facts,
)
from tests.compatibility.servers import EVENT, Answer, Question, Server

if TYPE_CHECKING:
    from tests.compatibility.conftest import Pair

UNORDERED = [*MANAGEMENT, *INFERENCE, *KSERVE, *METRICS]
WORKER_FACTS = {"id", "startTime", "status", "memoryUsage", "pid", "gpu", "gpuUsage"}


def assert_holds(answer: Answer, facts: Facts) -> None:
    assert answer.status == facts.status, answer
    assert facts.holds in answer.text, answer


def assert_answered_as_listed(pair: "Pair", case: Case) -> None:
    plain, ours = pair.plain.ask(case.question), pair.ours.ask(case.question)
    assert_holds(plain, case.plain)
    if case.ours is None:
        assert ours == plain
    else:
        assert_holds(ours, case.ours)
        assert ours != plain, "no difference any more: take it from the list"
        assert case.why


@pytest.mark.parametrize("case", UNORDERED, ids=lambda case: f"{case.question.port}: {case.what}")
def test_a_question_is_answered_as_listed_and_a_prediction_alone_is_counted(
    pair: "Pair", case: Case
) -> None:
    before = pair.processed()
    assert_answered_as_listed(pair, case)
    assert pair.processed() - before == (1 if case.ours == SCORED else 0)


def test_workers_scale_alike(pair: "Pair") -> None:
    counts = []
    for case in SCALING:
        assert_answered_as_listed(pair, case)
        described = [server.described() for server in (pair.plain, pair.ours)]
        counts.append([(one["minWorkers"], one["maxWorkers"]) for one in described])
        for server, one in zip((pair.plain, pair.ours), described, strict=True):
            server.wait_for_workers(one["minWorkers"])
    assert counts == [[(n, n)] * 2 for n in (3, 2, 1, 1, 1, 1)]


def test_a_model_is_described_alike_but_for_what_is_listed(pair: "Pair") -> None:
    for server in (pair.plain, pair.ours):
        one = "/models/scorer?min_worker=1&max_worker=1&synchronous=true"
        assert server.ask(Question("PUT", "management", one)).status == 200
        server.wait_for_workers(1)
    plain, ours = pair.plain.described(), pair.ours.described()
    (plain_worker,), (our_worker,) = plain.pop("workers"), ours.pop("workers")
    assert set(plain_worker) == set(our_worker) == WORKER_FACTS
    assert list(plain) == list(ours)
    differing = {name: (plain[name], ours[name]) for name in plain if plain[name] != ours[name]}
    assert differing == {name: values[:2] for name, values in DESCRIBED.items()}


def test_versions_come_and_go_alike(opened: "Pair") -> None:
    for case in VERSIONS:
        assert_answered_as_listed(opened, case)
    for server in (opened.plain, opened.ours):
        assert server.described()["modelVersion"] == "2.0"
        gone = server.ask(Question("GET", "management", "/models/scorer/1.0"))
        assert gone.status == 404


@pytest.mark.parametrize("name", ALLOWED)
def test_a_key_opens_the_same_doors(opened: "Pair", name: str) -> None:
    doors = [
        Question("GET", "inference", "/ping"),
        Question("GET", "management", "/models/scorer"),
        Question("GET", "metrics", "/metrics"),
    ]
    for server in (opened.plain, opened.ours):
        inference = server.key("inference")
        headers = {
            "none": {},
            "a wrong one": {"Authorization": "Bearer wrong"},
            "the inference key": inference,
            "the inference key without `Bearer`": {
                "Authorization": inference["Authorization"].removeprefix("Bearer ")
            },
            "the management key": server.key("management"),
        }[name]
        answers = {door.port: server.ask(door, headers) for door in doors}
        open_ones = {port for port, answer in answers.items() if answer.status == 200}
        assert open_ones == ALLOWED[name], answers
        for port in answers.keys() - open_ones:
            assert_holds(answers[port], NO_KEY)


def test_a_new_key_ends_the_old_one_alike(opened: "Pair") -> None:
    for server in (opened.plain, opened.ours):
        old = server.key("inference")
        renew = Question("GET", "management", "/token?type=inference")
        assert_holds(server.ask(renew, old), Facts(400, "Token Authentication failed"))
        api = json.loads(server.key_file.read_bytes())["API"]["key"]
        assert server.ask(renew, {"Authorization": f"Bearer {api}"}).status == 200
        assert server.key("inference") != old
        ping = Question("GET", "inference", "/ping")
        assert_holds(server.ask(ping, old), NO_KEY)
        assert_holds(server.ask(ping), HEALTHY)


def test_both_have_the_same_metrics_but_for_what_is_listed(opened: "Pair") -> None:
    exposed = []
    for server, listed in ((opened.plain, {*METRIC_TYPES, *MACHINE_METRICS}),
                           (opened.ours, METRIC_TYPES.keys())):  # fmt: skip
        assert server.ask(Question("POST", "inference", "/predictions/scorer", EVENT)).status == 200
        assert server.ask(Question("POST", "inference", "/predictions/none")).status == 404
        deadline = time.monotonic() + 60
        while missing := listed - _metric_types(server).keys():
            assert time.monotonic() < deadline, missing
            time.sleep(0.2)
        exposed.append(_metric_types(server))
    plain, ours = exposed
    assert {name: (plain[name], ours[name]) for name in METRIC_TYPES} == {
        name: (kind, kind) for name, kind in METRIC_TYPES.items()
    }
    assert plain.keys() - METRIC_TYPES.keys() == MACHINE_METRICS
    added = ours.keys() - METRIC_TYPES.keys()
    assert added
    assert [name for name in added if not name.startswith("medianserve_")] == []


def _metric_types(server: Server) -> dict[str, str]:
    """Return the type of each metric that is there now, by name."""
    text = server.ask(Question("GET", "metrics", "/metrics")).text
    lines = [line.split() for line in text.splitlines() if line.startswith("# TYPE")]
    return {name: kind for _, _, name, kind in lines}


def test_our_archive_works_in_a_plain_torchserve(opened: "Pair") -> None:
    register = "/models?url=ours.mar&model_name=ours&initial_workers=1&synchronous=true"
    registered = opened.plain.ask(Question("POST", "management", register))
    assert registered.status == 200, registered
    user = uuid.uuid4().hex
    body = EVENT.replace(b"compatible", user.encode())
    answer = opened.plain.ask(Question("POST", "inference", "/predictions/ours", body))
    assert (answer.status, answer.document["recorded"]) == (200, "stored"), answer
    median = urllib3.request("GET", f"{opened.state_url}/users/{user}/median").json()
    assert [median["median"]] == answer.document["scores"]
    unregistered = opened.plain.ask(Question("DELETE", "management", "/models/ours"))
    assert unregistered.status == 200


def test_both_answer_over_grpc(
    pair: "Pair", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stubs(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    messages: Any = importlib.import_module("inference_pb2")
    services: Any = importlib.import_module("inference_pb2_grpc")
    body = EVENT.replace(b"NOW", b"%f" % time.time())
    request = messages.PredictionsRequest(model_name="scorer", input={"body": body})
    nobody = messages.PredictionsRequest(model_name="nobody", input={"body": body})
    for server, holds in ((pair.plain, "compatible"), (pair.ours, '"processed": 1')):
        key = {name.lower(): value for name, value in server.key("grpc").items()}
        options: Any = {"timeout": 30, "metadata": tuple(key.items())}
        with grpc.insecure_channel(f"127.0.0.1:{server.ports['grpc']}") as channel:
            calls = services.InferenceAPIsServiceStub(channel)
            assert "Healthy" in calls.Ping(Empty(), **options).health
            answer = json.loads(calls.Predictions(request, **options).prediction)
            assert holds in json.dumps(answer)
            with pytest.raises(grpc.RpcError, match="Model not found: nobody"):
                calls.Predictions(nobody, **options)
