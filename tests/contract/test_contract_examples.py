"""Every example of the contract is answered as written.

An example of an answer is asked for with the contract's own example of the request. Compared is all
but what is another at each run: moments, counters of `/stats`, and, in what is said to people,
numbers, as a test would rather not hold 50,000,000 scores.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
import pytest
import torch

from handler.create_model import create_state_dict
from handler.network import build
from handler.pipeline import Pipeline
from handler.reading import Request
from handler.recording import StateClient
from handler.scoring import Scorer
from handler.settings import HandlerSettings
from tests.contract.contract_support import SPEC, Served, operations, resolve, served
from tests.handler.pipeline_support import UNREACHABLE
from tests.readme import assert_shown
from tests.state_service.scorer_fake import break_off, never_answer
from tests.state_service.scorer_fake import scorer as fake_torchserve

SCORER = "/predictions/scorer"
READ, WRITE = "read-token-of-the-tests", "write-token-of-the-tests"
VOLATILE = {"forgotten_at"}
# What the events of a body of TorchServe's side are dated, which are scored by the wall clock.
DATED = 1760000000.25


class Example(NamedTuple):
    """One example of an answer: where it stands, and the answer."""

    name: str
    status: int
    value: Any


def _examples(media: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    if "example" in media:
        yield "", media["example"]
    for name, example in media.get("examples", {}).items():
        yield name, resolve(example)["value"]


def answers() -> Iterator[Example]:
    """Yield the examples of all answers; one that several operations share comes once."""
    seen = set()
    for method, path, operation in operations():
        for status, written in operation["responses"].items():
            answer = resolve(written)
            place = written["$ref"].rpartition("/")[2] if "$ref" in written else ""
            for media_type, media in answer.get("content", {}).items():
                for name, value in _examples(media):
                    known = f"{method} {path}"
                    if path == SCORER and media_type == "application/json" and status != "200":
                        known += " by TorchServe"
                    title = " ".join(filter(None, [place or f"{known} {status}", name]))
                    if title not in seen:
                        seen.add(title)
                        code = value.get("status", value.get("code")) if status[0] != "2" else 0
                        yield Example(title, code or int(status), value)


EXAMPLES = {example.name: example for example in answers()}


def example_of(method: str, path: str) -> Any:
    """Return the first example of a request's JSON body."""
    content = SPEC["paths"][path][method]["requestBody"]["content"]["application/json"]
    return next(value for _, value in _examples(content))


class Asker:
    """Asks one service, and holds what it answers against an example."""

    def __init__(self, service: Served, session: aiohttp.ClientSession) -> None:
        self.service = service
        self.session = session

    async def __call__(self, name: str, method: str, address: str, **options: Any) -> str:
        """Return the example's name, which is to be ticked off."""
        url = self.service.url + address
        async with self.session.request(method, url, **options) as answer:
            return assert_as_written(name, answer.status, await answer.read())


def assert_as_written(name: str, status: int, body: bytes) -> str:
    """Assert that an answer is the example of that name; return the name."""
    example = EXAMPLES[name]
    real, shown = msgspec.json.decode(body), example.value
    assert status == example.status, real
    assert real.keys() == shown.keys()
    if "detail" in shown:
        real, shown = (
            {**problem, "detail": re.sub(r"\d+", "0", problem["detail"])}
            for problem in (real, shown)
        )
    for key in VOLATILE & shown.keys():
        assert type(real.pop(key)) is type(shown[key])
        shown = {name: value for name, value in shown.items() if name != key}
    assert_shown(shown, real, name)
    return name


@asynccontextmanager
async def asking(folder: Path, **settings: Any) -> AsyncIterator[Asker]:
    async with served(folder, **settings) as service, aiohttp.ClientSession() as session:
        yield Asker(service, session)


async def test_each_answer_of_the_state_service_is_as_written(tmp_path: Path) -> None:
    asked = set()
    async with asking(tmp_path / "story", clock="event", snapshot_interval_seconds=3600.0) as ask:
        asked |= {name async for name in _tell_the_story(ask)}
        asked |= {name async for name in _ask_how_it_is(ask)}
    limits: dict[str, Any] = {"max_live_events": 10, "max_body_bytes": 2_000_000, "max_viewers": 1}
    async with asking(tmp_path / "limits", **limits) as ask:
        asked |= {name async for name in _go_too_far(ask)}
        asked |= {name async for name in _come_at_a_bad_time(ask)}
    async with asking(tmp_path / "closed", read_token=READ, write_token=WRITE) as ask:
        headers = {"Authorization": f"Bearer {READ}"}
        asked.add(await ask("Unauthorized", "GET", "/stats"))
        asked.add(await ask("Forbidden", "POST", "/scores", json={}, headers=headers))
    asked |= {name async for name in _hand_on(tmp_path / "ingest")}
    assert asked == {name for name in EXAMPLES if SCORER not in name}


async def _hand_on(folder: Path) -> AsyncIterator[str]:
    """Ask TorchServe through the service."""
    limits: dict[str, Any] = {"body_timeout_seconds": 1.0, "ingest_timeout_seconds": 1.0}

    async def slowly() -> AsyncIterator[bytes]:
        yield b"["
        await asyncio.sleep(30)

    async with fake_torchserve() as behind:
        async with asking(folder, torchserve_url=behind.url, **limits) as ask:
            event = example_of("post", "/ingest")
            yield await ask("post /ingest 200", "POST", "/ingest", json=event)
            yield await ask("post /ingest 400", "POST", "/ingest", data=slowly())
            behind.act = break_off
            headers = {"Idempotency-Key": "k"}
            yield await ask("post /ingest 502", "POST", "/ingest", json=event, headers=headers)
            behind.act = never_answer
            yield await ask("post /ingest 504", "POST", "/ingest", json=event)
        async with asking(folder, torchserve_url=behind.url, max_body_bytes=1000) as ask:
            yield await ask("post /ingest 413", "POST", "/ingest", data=b" " * 1001)
    async with asking(folder, torchserve_url=behind.url) as ask:
        yield await ask("post /ingest 503", "POST", "/ingest", json=event)
    async with asking(folder) as ask:
        yield await ask("post /ingest 501", "POST", "/ingest", json=event)


async def _tell_the_story(ask: Asker) -> AsyncIterator[str]:
    scores, medians = example_of("post", "/scores"), example_of("post", "/medians")
    yield await ask("post /scores 200 recorded", "POST", "/scores", json=scores)
    yield await ask("post /scores 200 repeated", "POST", "/scores", json=scores)
    for what, query in (("median", ""), ("stats", "?q=0.05,0.95"), ("scores", "")):
        name = f"get /users/{{user_id}}/{what} 200"
        yield await ask(f"{name} active", "GET", f"/users/alice/{what}{query}")
        yield await ask(f"{name} empty", "GET", f"/users/nobody/{what}")
    yield await ask("get /users 200", "GET", "/users?limit=1")
    yield await ask("post /medians 200", "POST", "/medians", json=medians)
    yield await ask("delete /users/{user_id} 200 known", "DELETE", "/users/alice")
    yield await ask("delete /users/{user_id} 200 unknown", "DELETE", "/users/nobody")


async def _ask_how_it_is(ask: Asker) -> AsyncIterator[str]:
    yield await ask("get /healthz 200", "GET", "/healthz")
    yield await ask("get /readyz 200", "GET", "/readyz")
    async with ask.service.service.state.changing:  # holds the snapshot back
        yield await ask("post /snapshot 202", "POST", "/snapshot")
        yield await ask("post /snapshot 409", "POST", "/snapshot")
    async with ask.session.get(f"{ask.service.url}/metrics") as answer:
        written = EXAMPLES["get /metrics 200"].value.splitlines()
        pattern = "\n".join(re.sub(r"[\d.]+$", r"[\\d.]+", line) for line in written)
        assert re.search(pattern, await answer.text())
        yield "get /metrics 200"
    async with ask.session.get(f"{ask.service.url}/stats") as answer:
        example, real = EXAMPLES["get /stats 200"].value, await answer.json()
        assert _shape(example) == _shape(real)
        assert set(example["limit_hits"]) <= set(real["limit_hits"])
        yield "get /stats 200"


def _shape(value: Any) -> Any:
    """Return the names in an object and, below them, in theirs; counts by name are one's own."""
    if not isinstance(value, dict):
        return None
    return {name: _shape(item) for name, item in value.items() if name != "limit_hits"}


async def _go_too_far(ask: Asker) -> AsyncIterator[str]:
    uneven = {"key": "k", "user_id": ["a"] * 3, "timestamp": [1.0] * 3, "score": [1.0] * 2}
    eleven: dict[str, Any] = {"key": "k", "user_id": ["a"] * 11, "score": [1.0] * 11}
    eleven["timestamp"] = [time.time()] * 11
    yield await ask("post /scores 400", "POST", "/scores", json={"batches": [uneven]})
    yield await ask("post /scores 413", "POST", "/scores", data=BytesIO(b" " * 2_000_001))
    yield await ask("post /scores 503", "POST", "/scores", json={"batches": [eleven]})
    yield await ask("post /medians 413", "POST", "/medians", json={"user_ids": ["a"] * 10_001})
    yield await ask("InvalidWindow", "GET", "/users/alice/median?window=0")
    yield await ask("get /users 400", "GET", "/users?sort=name")
    yield await ask("delete /users/{user_id} 400", "DELETE", f"/users/{'u' * 257}")
    yield await ask("AnyProblem", "GET", "/scores")
    async with ask.session.get(f"{ask.service.url}/events"):
        yield await ask("get /events 503", "GET", "/events")


async def _come_at_a_bad_time(ask: Asker) -> AsyncIterator[str]:
    service = ask.service.service
    limit, service.requests_in_flight = service.requests_in_flight, 256
    yield await ask("NotReadyForBody", "POST", "/medians", json={"user_ids": []})
    service.requests_in_flight, service.phase = limit, "restoring"
    yield await ask("NotReady", "GET", "/users/alice/median")
    yield await ask("get /readyz 503", "GET", "/readyz")
    service.phase = "ready"
    connection = service.store._connection  # noqa: SLF001 - the limit is a connection's own
    await connection.execute("PRAGMA max_page_count = 1")  # rounds up to the present size
    for number in range(1000):  # until the pages that are there are full
        url = f"{ask.service.url}/users/forgotten-{number}"
        async with ask.session.delete(url) as answer:
            if answer.status != 200:
                break
    yield await ask("delete /users/{user_id} 503", "DELETE", "/users/one-more")


@pytest.fixture
def scorer() -> Scorer:
    network = build(3)
    network.load_state_dict(create_state_dict())
    return Scorer(network, 3, torch.device("cpu"))


def _post(pipeline: Pipeline, body: Any, **headers: str) -> tuple[int, bytes]:
    encoded = msgspec.json.encode(body).replace(b"1760000000.25", b"%.2f" % time.time())
    answer = pipeline.process([Request(encoded, {"content-type": "application/json", **headers})])
    return answer[0].status, answer[0].body


def test_each_answer_of_the_scorer_is_as_written(
    state_url: str, scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = example_of("post", SCORER)["events"][0]
    faulty = {"events": [event, event | {"features": [1, 2]}]}
    late = event | {"timestamp": round(DATED * 1000)}
    named = {"x-request-id": "2f1c9c1e"}
    with closing(StateClient(state_url)) as client, closing(StateClient(UNREACHABLE)) as nobody:
        pipeline = Pipeline(HandlerSettings(), scorer, client)
        alone = Pipeline(HandlerSettings(), scorer, nobody)
        answers = {
            "200 stored": _post(pipeline, faulty),
            "200 milliseconds": _post(pipeline, late, **named),
            "400": _post(pipeline, {"events": 7}),
            "413": _post(pipeline, [event] * 60_000),
            "503": _post(alone, [event]),
        }
        monkeypatch.setattr("handler.pipeline.read_requests", lambda *_: 1 / 0)
        answers["500"] = _post(pipeline, [event])
    for name, answer in answers.items():
        assert_as_written(f"post {SCORER} {name}", *answer)
    assert {f"post {SCORER} {name}" for name in answers} == {
        name for name in EXAMPLES if SCORER in name and "TorchServe" not in name
    }
