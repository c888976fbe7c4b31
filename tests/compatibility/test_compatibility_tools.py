"""The tools that people send events with: what each has sent is counted once."""

import asyncio
import functools
import gzip
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import pyarrow as pa
import pytest
import requests
import urllib3

from tests.compatibility.servers import EVENT, Server
from tests.compatibility.tools import CURL, CurlCommand
from tests.running_stack import RunningStack

if TYPE_CHECKING:
    from tests.compatibility.conftest import Pair

EVENTS, REQUESTS = 3, 5
MARK = "written out: "  # before what curl tells of a request; beside it there may be warnings


class Sender:
    """A user of a test's own, and what the service has counted since the test began."""

    def __init__(self, stack: RunningStack) -> None:
        self.url = stack.url(8080, "/predictions/scorer")
        self.user = f"user-{uuid.uuid4().hex}"
        self._stack = stack
        self._before = self._processed()

    def events(self) -> list[dict[str, Any]]:
        now = time.time()
        return [
            {"user_id": self.user, "timestamp": now, "features": [0.1 * i, 0.2, 0.3]}
            for i in range(EVENTS)
        ]

    def counted(self) -> tuple[int, int]:
        """Return how many events the user's median has, and the service processed."""
        median = self._stack.get(f"/users/{self.user}/median")
        return median["count"], self._processed() - self._before

    def _processed(self) -> int:
        processed: int = self._stack.get("/stats")["events_processed"]
        return processed


@pytest.fixture
def sender(stack: RunningStack) -> Sender:
    return Sender(stack)


def tool(name: str) -> str:
    """Return where a command is; skip, saying so, where there is none."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name} here: it is not tried")
    return found


def write_files(folder: Path, events: list[dict[str, Any]]) -> None:
    document = json.dumps({"events": events}).encode()
    (folder / "events.json").write_bytes(document)
    (folder / "events.json.gz").write_bytes(gzip.compress(document))
    lines = "".join(json.dumps(one) + "\n" for one in events).encode()
    (folder / "events.ndjson").write_bytes(lines)
    (folder / "events.ndjson.zst").write_bytes(pa.compress(lines, "zstd", asbytes=True))
    table = pa.Table.from_pylist(events)
    with pa.ipc.new_stream(folder / "events.arrow", table.schema) as stream:
        stream.write_table(table)


@functools.cache
def features_of_curl() -> list[str]:
    done = subprocess.run([tool("curl"), "--version"], capture_output=True, text=True, check=True)
    return done.stdout.split()


def curl(folder: Path, arguments: str, *urls: str) -> tuple[list[int], list[int], str]:
    """Run a command of curl; return the statuses, how often it connected for each, the answers."""
    if "--http2" in arguments and "HTTP2" not in features_of_curl():
        pytest.skip("this curl does not speak HTTP/2: it is not tried")
    told = f"%{{stderr}}{MARK}%{{http_code}} %{{num_connects}}\\n"
    options = f"--silent --show-error --max-time 60 --write-out '{told}'"
    command = f"{tool('curl')} {options} {shlex.join(urls)} {arguments}"
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=True
    )
    told_lines = [line for line in done.stderr.splitlines() if line.startswith(MARK)]
    lines = [line.removeprefix(MARK).split() for line in told_lines]
    return [int(one) for one, _ in lines], [int(two) for _, two in lines], done.stdout


@pytest.mark.parametrize("command", CURL, ids=lambda command: command.after + command.arguments)
def test_what_curl_sends_is_counted_once_or_refused(
    sender: Sender, tmp_path: Path, command: CurlCommand
) -> None:
    write_files(tmp_path, sender.events())
    statuses, _, answer = curl(tmp_path, command.arguments, sender.url + command.after)
    assert statuses == [command.status], answer
    counted = EVENTS if command.status == 200 else 0
    assert sender.counted() == (counted, counted)
    if command.status == 400:
        assert command.told in json.loads(answer)["detail"]


def test_curl_keeps_its_connection(sender: Sender, tmp_path: Path) -> None:
    write_files(tmp_path, sender.events())
    statuses, connects, _ = curl(
        tmp_path, "-H 'Content-Type: application/json' -d @events.json", sender.url, sender.url
    )
    assert (statuses, connects) == ([200, 200], [1, 0])
    assert sender.counted() == (2 * EVENTS, 2 * EVENTS)


def test_http_2_without_tls_is_not_spoken_and_counts_nothing(
    sender: Sender, tmp_path: Path
) -> None:
    write_files(tmp_path, sender.events())
    with pytest.raises(subprocess.CalledProcessError):
        curl(tmp_path, "--http2-prior-knowledge -d @events.json", sender.url)
    assert sender.counted() == (0, 0)


def with_requests(sender: Sender) -> Iterator[int]:
    with requests.Session() as session:
        for _ in range(REQUESTS):
            yield session.post(sender.url, json={"events": sender.events()}).status_code


def with_requests_in_chunks(sender: Sender) -> Iterator[int]:
    with requests.Session() as session:
        for _ in range(REQUESTS):
            pieces = iter([json.dumps(sender.events()[:1])[:-1].encode(), b",",
                           json.dumps(sender.events()[1:])[1:].encode()])  # fmt: skip
            yield session.post(sender.url, data=pieces).status_code


def with_requests_as_a_file(sender: Sender) -> Iterator[int]:
    with requests.Session() as session:
        for _ in range(REQUESTS):
            file = json.dumps(sender.events()).encode()
            yield session.post(sender.url, files={"file": ("events.json", file)}).status_code


def with_httpx(sender: Sender) -> Iterator[int]:
    with httpx.Client() as client:
        for _ in range(REQUESTS):
            yield client.post(sender.url, json=sender.events()).status_code


def with_aiohttp(sender: Sender) -> Iterator[int]:
    async def send() -> list[int]:
        async with aiohttp.ClientSession() as session:
            statuses = []
            for _ in range(REQUESTS):
                async with session.post(sender.url, json=sender.events()) as answer:
                    statuses.append(answer.status)
            return statuses

    yield from asyncio.run(send())


def with_urllib3(sender: Sender) -> Iterator[int]:
    with urllib3.PoolManager() as pool:
        for _ in range(REQUESTS):
            yield pool.request("POST", sender.url, json=sender.events()).status


def with_urllib(sender: Sender) -> Iterator[int]:
    for _ in range(REQUESTS):
        request = urllib.request.Request(
            sender.url, json.dumps(sender.events()).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            yield answer.status


def with_node(sender: Sender) -> Iterator[int]:
    script = """
      const [url, bodies] = [process.argv[1], JSON.parse(process.argv[2])]
      const statuses = []
      for (const body of bodies) {
        const answer = await fetch(url, {method: "POST", body: JSON.stringify(body)})
        await answer.json()
        statuses.push(answer.status)
      }
      console.log(JSON.stringify(statuses))
    """
    bodies = [{"events": sender.events()} for _ in range(REQUESTS)]
    command = [tool("node"), "--input-type=module", "--eval", script, "--", sender.url]
    done = subprocess.run(
        [*command, json.dumps(bodies)], capture_output=True, text=True, check=True
    )
    yield from json.loads(done.stdout)


@pytest.mark.parametrize(
    "send",
    [with_requests, with_requests_in_chunks, with_requests_as_a_file, with_httpx, with_aiohttp,
     with_urllib3, with_urllib, with_node],
    ids=lambda send: send.__name__.removeprefix("with_"),
)  # fmt: skip
def test_what_a_client_sends_is_counted_once(
    sender: Sender, send: Callable[[Sender], Iterator[int]]
) -> None:
    assert list(send(sender)) == [200] * REQUESTS
    assert sender.counted() == (REQUESTS * EVENTS, REQUESTS * EVENTS)


def test_what_ab_sends_is_counted_once(sender: Sender, tmp_path: Path) -> None:
    write_files(tmp_path, sender.events())
    options = "-k -l -n 200 -c 4 -p events.json -T application/json"
    done = subprocess.run(
        [tool("ab"), *options.split(), sender.url],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "Keep-Alive requests:    200" in done.stdout
    assert "Non-2xx" not in done.stdout
    assert sender.counted() == (200 * EVENTS, 200 * EVENTS)


def test_what_locust_sends_is_counted_once(
    stack: RunningStack, sender: Sender, tmp_path: Path
) -> None:
    file = Path(__file__).with_name("locustfile.py")
    options = "--headless --json --users 4 --spawn-rate 4 --run-time 2s --stop-timeout 30"
    where = ("--locustfile", str(file), "--host", stack.url(8080, ""))
    done = subprocess.run(
        [sys.executable, "-m", "locust", *options.split(), *where],
        env={**os.environ, "EVENT_USER": sender.user},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (posted,) = json.loads(done.stdout)
    assert posted["num_failures"] == 0
    sent = posted["num_requests"]
    assert sent > 0
    assert sender.counted() == (sent, sent)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_torchserve_keeps_a_connection_that_the_client_wants_closed(
    pair: "Pair", version: str
) -> None:
    for server in (pair.plain, pair.ours):
        request = _request_to_close(server, version)
        with socket.create_connection(("127.0.0.1", server.ports["inference"]), 60) as connection:
            answers = connection.makefile("rb")
            for _ in range(2):  # the second on the connection that should be closed
                connection.sendall(request)
                assert answers.readline().startswith(b"HTTP/1.1 200 ")
                lines = iter(answers.readline, b"\r\n")
                headers = dict(line.decode().lower().strip().split(": ", 1) for line in lines)
                assert headers.get("connection") != "close"
                answers.read(int(headers["content-length"]))


def _request_to_close(server: Server, version: str) -> bytes:
    body = EVENT.replace(b"NOW", b"%f" % time.time())
    head = [
        f"POST /predictions/scorer HTTP/{version}",
        "Host: localhost",
        "Connection: close",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in server.key("inference").items()),
    ]
    return "\r\n".join([*head, "", ""]).encode() + body
