"""The whole stack with TorchServe's token authorization and the state service's tokens on."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import psutil
import pytest
import urllib3

if TYPE_CHECKING:
    from tests.running_stack import RunningStack

ROOT = Path(__file__).parents[2]
READ, WRITE = "read-token-of-the-tests", "write-token-of-the-tests"
INGEST = "ingest-token-of-the-tests"
EVENT = {"user_id": "u", "features": [0.1, 0.2, 0.3]}


def _key(stack: "RunningStack", use: str) -> str:
    keys = json.loads((stack.var / "key_file.json").read_text())
    return str(keys[use]["key"])


def _asked(
    stack: "RunningStack", method: str, port: int, path: str, token: str | None, **options: Any
) -> urllib3.BaseHTTPResponse:
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return stack.http.request(method, stack.url(port, path), headers=headers, **options)


def _predict(stack: "RunningStack", token: str | None) -> urllib3.BaseHTTPResponse:
    body = json.dumps({**EVENT, "timestamp": time.time()})
    return _asked(stack, "POST", 8080, "/predictions/scorer", token, body=body)


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.timeout(180)
def test_with_tokens_everybody_needs_one_and_the_stack_has_its_own(
    start_stack: Callable[..., "RunningStack"], tmp_path: Path
) -> None:
    (tmp_path / "write").write_text(WRITE + "\n")
    stack = start_stack(
        tmp_path / "var",
        TS_DISABLE_TOKEN_AUTHORIZATION="false",
        STATE_READ_TOKEN=READ,
        STATE_WRITE_TOKEN_FILE=str(tmp_path / "write"),
        STATE_INGEST_TOKEN=INGEST,
    )
    stack.wait_for_line("medianserve is ready")  # so the probe and the handler are let in
    key_file = stack.var / "key_file.json"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    inference, management = _key(stack, "inference"), _key(stack, "management")

    _check_scoring(stack, inference, management)
    _check_state(stack)
    _check_ingest(stack, inference)
    _check_management(stack, management)
    _check_grpc(stack, inference)
    _check_generator(stack)
    secrets = [READ, WRITE, INGEST, inference, management, _key(stack, "API")]
    secrets.append(_check_a_new_key(stack))

    family = psutil.Process(stack.process.pid).children(recursive=True)
    commands = [argument for process in family for argument in process.cmdline()]
    written = [path for folder in (stack.var, stack.var / "log") for path in folder.iterdir()]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in written if path.is_file()}
    assert (len(written) > 8, modes) == (True, {0o600})
    stack.kill("org.pytorch.serve.ModelServer")  # the one that comes back has new keys
    stack.wait_for_line("torchserve ended unexpectedly")
    stack.wait_for_line("medianserve is ready again")
    assert _predict(stack, _key(stack, "inference")).status == 200
    assert _predict(stack, inference).status == 400
    assert stack.stop(signal.SIGTERM) == 0
    logs = "".join(path.read_text() for path in (stack.var / "log").iterdir())
    said = logs + "".join(stack.output) + stack.rest() + " ".join(commands)
    assert [secret for secret in secrets if secret in said] == []


def _check_scoring(stack: "RunningStack", inference: str, management: str) -> None:
    for refused in (None, "", management, inference + "x"):
        answer = _predict(stack, refused)
        assert (answer.status, answer.json()["type"]) == (400, "InvalidKeyException")
    answer = _predict(stack, inference)
    assert (answer.status, answer.json()["recorded"]) == (200, "stored")


def _check_state(stack: "RunningStack") -> None:
    assert _asked(stack, "GET", 8090, "/users/u/median", None).status == 401
    for token in (READ, WRITE):
        answer = _asked(stack, "GET", 8090, "/users/u/median", token)
        assert (answer.status, answer.json()["count"]) == (200, 1)
    assert _asked(stack, "POST", 8090, "/scores", READ, body=b"{}").status == 403


def _check_ingest(stack: "RunningStack", inference: str) -> None:
    """See the service show TorchServe's key for those with the ingest token, and no others."""
    body = json.dumps({**EVENT, "user_id": "by-ingest", "timestamp": time.time()})
    for refused, status in ((None, 401), (inference, 401), (READ, 403)):
        assert _asked(stack, "POST", 8090, "/ingest", refused, body=body).status == status
    answer = _asked(stack, "POST", 8090, "/ingest", INGEST, body=body)
    assert (answer.status, answer.json()["recorded"]) == (200, "stored")
    assert _asked(stack, "GET", 8090, "/users/by-ingest/median", INGEST).status == 403
    median = _asked(stack, "GET", 8090, "/users/by-ingest/median", READ)
    assert median.json()["count"] == 1


def _check_management(stack: "RunningStack", management: str) -> None:
    assert _asked(stack, "GET", 8081, "/models/scorer", None).status == 400
    assert _asked(stack, "GET", 8081, "/models/scorer", management).status == 200
    url = ("--management-url", stack.url(8081, ""))
    key_file = str(stack.var / "key_file.json")
    assert _run("stack.workers", *url, "--key-file", key_file).stdout == "1 workers ready\n"
    refused = _run("stack.workers", *url, "--key-file", "none")
    assert refused.stderr.startswith("error: TorchServe refuses: Token Auth")
    probe = ("stack.probe", "--url", stack.url(8080, ""), "--key-file")
    assert _run(*probe, key_file).returncode == 0
    assert _run(*probe, "none").returncode == 1


def _check_grpc(stack: "RunningStack", inference: str) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{7070 + stack.offset}") as channel:
        ping: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping"
        )
        with pytest.raises(grpc.RpcError, match="Token Authorization failed"):
            ping(b"", timeout=10)
        metadata = (("authorization", f"Bearer {inference}"),)
        assert b"Healthy" in ping(b"", timeout=10, metadata=metadata)


def _check_generator(stack: "RunningStack") -> None:
    urls = ("--url", stack.url(8080, ""), "--state-url", stack.url(8090, ""))
    run = ("generator", "run", *urls, "--rate", "200", "--duration", "1", "--verify", "--quiet")
    key = _key(stack, "inference")
    assert _run(*run, GENERATOR_TOKEN=key, GENERATOR_STATE_TOKEN=READ).returncode == 0
    keyless = _run(*run, GENERATOR_STATE_TOKEN=READ)
    assert keyless.returncode == 2
    assert "give its inference key with --token" in keyless.stderr
    tokenless = _run(*run, GENERATOR_TOKEN=key)
    assert tokenless.returncode == 2
    assert "401 unauthorized" in tokenless.stderr
    assert "--state-token-file" in tokenless.stderr


def _check_a_new_key(stack: "RunningStack") -> str:
    """Replace the inference key while it runs: the old one ends at once; return the new one."""
    keys = json.loads((stack.var / "key_file.json").read_text())
    ends = datetime.fromisoformat(keys["inference"]["expiration time"].partition(".")[0] + "Z")
    assert (ends - datetime.now(UTC)).days > 3_000
    old = keys["inference"]["key"]
    assert _asked(stack, "GET", 8081, "/token?type=inference", old).status == 400
    replaced = _asked(stack, "GET", 8081, "/token?type=inference", keys["API"]["key"])
    assert replaced.status == 200, replaced.data
    new = _key(stack, "inference")
    assert new != old
    assert _predict(stack, old).status == 400
    assert _predict(stack, new).status == 200
    return new
