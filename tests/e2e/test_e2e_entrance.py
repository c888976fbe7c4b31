"""What curl sends, as people type it, is counted once or answered with what to type."""

import gzip
import json
import subprocess
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

if TYPE_CHECKING:
    from tests.running_stack import RunningStack

URL = "URL"
LINES, ARROW, GZIP, ZSTD = "@lines.ndjson", "@events.arrow", "@events.gz", "@lines.zst"

TAKEN = {
    "lines": ["--data-binary", LINES, "-H", "Content-Type: application/x-ndjson", URL],
    "lines as JSON": ["--data-binary", LINES, "-H", "Content-Type: application/json", URL],
    "lines as bytes": ["--data-binary", LINES, "-H", "Content-Type: application/octet-stream", URL],
    "lines of no type": ["--data-binary", LINES, "-H", "Content-Type:", URL],
    "lines without their ends": ["-d", LINES, "-H", "Content-Type: application/x-ndjson", URL],
    "lines without their ends as JSON": ["-d", LINES, "-H", "Content-Type: application/json", URL],
    "a multipart form": ["-F", "data=" + LINES, URL],
    "a part of another name": ["-F", "upload=" + LINES, URL],
    "a part of JSON": ["-F", "events=" + LINES + ";type=application/json", URL],
    "Arrow of no type": ["--data-binary", ARROW, "-H", "Content-Type:", URL],
    "Arrow as bytes": ["--data-binary", ARROW, "-H", "Content-Type: application/octet-stream", URL],
    "a part of Arrow": ["-F", "data=" + ARROW, URL],
    "uploaded": ["-T", LINES[1:], URL],
    "uploaded by POST": ["-X", "POST", "-T", LINES[1:], URL],
    "uploaded in chunks": ["-X", "POST", "-T", LINES[1:], "-H", "Transfer-Encoding: chunked", URL],
    "gzip": ["--data-binary", GZIP, "-H", "Content-Encoding: gzip",
             "-H", "Content-Type: application/json", URL],
    "gzip without a word": ["--data-binary", GZIP, "-H", "Content-Type: application/gzip", URL],
    "zstd": ["--data-binary", ZSTD, "-H", "Content-Encoding: zstd",
             "-H", "Content-Type: application/x-ndjson", URL],
}  # fmt: skip


@pytest.fixture
def user() -> str:
    return f"user-{uuid.uuid4().hex}"


@pytest.fixture
def folder(tmp_path: Path, user: str) -> Path:
    """Write one event and another, in every form."""
    events = [
        {"user_id": user, "timestamp": time.time(), "features": [1.0, 2.0, float(number)]}
        for number in range(2)
    ]
    lines = "".join(json.dumps(event) + "\n" for event in events).encode()
    (tmp_path / LINES[1:]).write_bytes(lines)
    (tmp_path / GZIP[1:]).write_bytes(gzip.compress(json.dumps({"events": events}).encode()))
    (tmp_path / ZSTD[1:]).write_bytes(pa.compress(lines, "zstd", asbytes=True))
    table = pa.Table.from_pylist(events)
    with pa.ipc.new_stream(tmp_path / ARROW[1:], table.schema) as writer:
        writer.write_table(table)
    return tmp_path


def curl(stack: "RunningStack", folder: Path, arguments: list[str], path: str = "") -> Any:
    url = stack.url(8080, path or "/predictions/scorer")
    command = ["curl", "-sS", "--max-time", "30"]
    command += [argument.replace(URL, url) for argument in arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("how", TAKEN)
def test_what_curl_sends_is_counted_once(
    stack: "RunningStack", folder: Path, user: str, how: str
) -> None:
    answer = curl(stack, folder, TAKEN[how])
    assert (answer.get("processed"), answer.get("recorded")) == (2, "stored"), answer
    assert stack.get(f"/users/{user}/median")["count"] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-d", LINES, URL], "-H 'Content-Type: application/json'"),
        (["-F", "a=" + LINES, "-F", "b=" + LINES, URL], "named data"),
        (["-X", "POST", URL], "POST events"),
        (["-F", "data=" + LINES, "-F", "version=2", URL], "/predictions/scorer/{version}"),
        (["-F", "data=" + LINES, "-F", "dry_run=1", URL], "X-Dry-Run: 1"),
    ],
)
def test_what_is_lost_or_not_looked_at_is_told_with_what_to_type(
    stack: "RunningStack", folder: Path, arguments: list[str], said: str
) -> None:
    problem = curl(stack, folder, arguments)
    assert problem["status"] == 400
    assert said in problem["detail"]


def test_a_slash_at_the_end_of_the_address_does_no_harm(
    stack: "RunningStack", folder: Path, user: str
) -> None:
    for path in ("/predictions/scorer/", "/predictions/scorer?"):
        assert curl(stack, folder, TAKEN["lines"], path)["processed"] == 2
    assert stack.get(f"/users/{user}/median")["count"] == 4


def test_torchserve_drops_parameters_of_the_address_before_we_see_them(
    stack: "RunningStack", folder: Path
) -> None:
    """A limit that docs/errors.md tells of; when this fails, refuse them as /ingest does."""
    answer = curl(stack, folder, TAKEN["lines"], "/predictions/scorer?dry_run=1")
    assert answer["recorded"] == "stored"


@pytest.mark.parametrize(("path", "status"), [("/health", 404), ("/", 405), ("/ping", 200)])
def test_addresses_of_torchserve_s_own_answer_as_documented(
    stack: "RunningStack", path: str, status: int
) -> None:
    answer = stack.http.request("GET", stack.url(8080, path))
    assert answer.status == status
    if status != 200:
        assert answer.json()["code"] == status
