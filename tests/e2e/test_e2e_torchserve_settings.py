"""Each line of config.properties that a variable may replace, replaced in a real TorchServe."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import psutil
import pytest

from tests.running_stack import ROOT, free_offset

# What the server says of itself at the level info, which ours is too quiet for.
LOG_CONFIG = """<Configuration><Appenders><Console name="out" target="SYSTEM_OUT">
<PatternLayout pattern="%m%n"/></Console></Appenders>
<Loggers><Root level="info"><AppenderRef ref="out"/></Root></Loggers></Configuration>
"""
STARTED = "Model server started."
# Not replaced by a variable of its own name, as docs/settings.md says; nor is what the worker is
# told by the model's archive.
WITHOUT = {
    "allowed_urls",
    "decode_input_request",
    "enable_envvars_config",
    "token_expiration_min",
    "vmargs",
}


class Started(NamedTuple):
    given: dict[str, str]
    said: str
    listening: set[tuple[str, int]]
    keys: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    folder, offset = tmp_path_factory.mktemp("ts"), free_offset()
    (folder / "log.xml").write_text(LOG_CONFIG)
    (folder / "models").mkdir()
    given = {
        "TS_INFERENCE_ADDRESS": f"http://127.0.0.1:{8080 + offset}",
        "TS_MANAGEMENT_ADDRESS": f"http://127.0.0.1:{8081 + offset}",
        "TS_METRICS_ADDRESS": f"http://127.0.0.1:{8082 + offset}",
        "TS_GRPC_INFERENCE_ADDRESS": "127.0.0.2",
        "TS_GRPC_INFERENCE_PORT": str(7070 + offset),
        "TS_GRPC_MANAGEMENT_ADDRESS": "127.0.0.3",
        "TS_GRPC_MANAGEMENT_PORT": str(7071 + offset),
        "TS_MODEL_STORE": str(folder / "models"),
        "TS_LOAD_MODELS": "",
        "TS_ENABLE_MODEL_API": "true",
        "TS_DISABLE_TOKEN_AUTHORIZATION": "false",
        "TS_DEFAULT_WORKERS_PER_MODEL": "3",
        "TS_MAX_REQUEST_SIZE": "1000",
        "TS_MAX_RESPONSE_SIZE": "1001",
        "TS_METRICS_MODE": "log",
        "TS_METRICS_CONFIG": str(ROOT / "metrics.yaml"),
        "TS_DISABLE_SYSTEM_METRICS": "false",
        "TS_INSTALL_PY_DEP_PER_MODEL": "true",
        # One has another name, one is ignored.
        "TS_TOKEN_EXPIRATION_TIME_MIN": "30",
        "TS_TOKEN_EXPIRATION_MIN": "7",
        "TS_ALLOWED_URLS": "file:///tmp/.*",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "stack.torchserve", "--log-config", str(folder / "log.xml"),
         "--temporary", str(folder / "t")],
        cwd=ROOT, env={**os.environ, **given}, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if STARTED in line:
                break
        else:
            raise AssertionError("".join(lines))
        listening: set[tuple[str, int]] = set()
        deadline = time.monotonic() + 30
        while len(listening) < 5 and time.monotonic() < deadline:  # gRPC comes last
            connections = psutil.Process(process.pid).net_connections("tcp")
            listening = {
                (each.laddr[0].removeprefix("::ffff:"), each.laddr[1])
                for each in connections
                if each.status == psutil.CONN_LISTEN
            }
            time.sleep(0.1)
        keys = json.loads((folder / "t" / "key_file.json").read_text())
        yield Started(given, "".join(lines), listening, keys)
    finally:
        process.kill()
        process.communicate()


def test_each_variable_that_the_documents_promise_is_tried_here(started: Started) -> None:
    lines = (ROOT / "config.properties").read_text().splitlines()
    names = {line.partition("=")[0] for line in lines if line and not line.startswith("#")}
    assert {f"TS_{name.upper()}" for name in names - WITHOUT} <= set(started.given)


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("TS_INFERENCE_ADDRESS", "Inference address: {}"),
        ("TS_MANAGEMENT_ADDRESS", "Management address: {}"),
        ("TS_METRICS_ADDRESS", "Metrics address: {}"),
        ("TS_MODEL_STORE", "Model Store: {}"),
        ("TS_LOAD_MODELS", "Initial Models: {}"),
        ("TS_ENABLE_MODEL_API", "Model API enabled: {}"),
        ("TS_DISABLE_TOKEN_AUTHORIZATION", "TorchServe now enforces token authorization"),
        ("TS_DEFAULT_WORKERS_PER_MODEL", "Default workers per model: {}"),
        ("TS_MAX_REQUEST_SIZE", "Maximum Request Size: {}"),
        ("TS_MAX_RESPONSE_SIZE", "Maximum Response Size: {}"),
        ("TS_METRICS_MODE", "Metrics mode: LOG"),
        ("TS_METRICS_CONFIG", "Metrics config path: {}"),
        ("TS_DISABLE_SYSTEM_METRICS", "Disable system metrics: {}"),
        ("TS_INSTALL_PY_DEP_PER_MODEL", "Custom python dependency for model allowed: {}"),
    ],
)
def test_a_variable_replaces_its_line(started: Started, variable: str, words: str) -> None:
    assert words.format(started.given[variable]) + "\n" in started.said.replace(" by default.", "")


def test_the_grpc_addresses_are_those_of_the_variables(started: Started) -> None:
    for use, host in (("INFERENCE", "127.0.0.2"), ("MANAGEMENT", "127.0.0.3")):
        assert (host, int(started.given[f"TS_GRPC_{use}_PORT"])) in started.listening


def test_keys_last_as_long_as_the_variable_of_another_name_says(started: Started) -> None:
    ends = datetime.fromisoformat(started.keys["inference"]["expiration time"].partition(".")[0])
    minutes = (ends.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds() / 60
    assert 25 < minutes <= 30


def test_no_variable_opens_where_models_may_come_from(started: Started) -> None:
    assert "Allowed Urls: [file:///nonexistent/.*]\n" in started.said
