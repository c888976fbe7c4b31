"""The contract, openapi.yaml, as tests use it: schemas that validate, and a state service."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from state_service.app import create_app
from state_service.app_keys import SERVICE
from state_service.documentation import load_spec
from state_service.service import StateService
from state_service.settings import Settings

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
SPEC = msgspec.json.decode(msgspec.json.encode(load_spec()))  # as clients get it: plain JSON

_ROOT = "urn:openapi"
_REGISTRY: Registry[Any] = Registry().with_resource(
    _ROOT, Resource.from_contents(SPEC, default_specification=DRAFT202012)
)


def resolve(node: Any) -> Any:
    """Follow a `$ref` to what it names; anything else is itself."""
    while isinstance(node, dict) and "$ref" in node:
        node = _REGISTRY.resolver(_ROOT).lookup(node["$ref"]).contents
    return node


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (method, path, operation) of the whole document."""
    for path, item in SPEC["paths"].items():
        for method in METHODS:
            if method in item:
                yield method, path, item[method]


def pointer(*keys: str | int) -> str:
    """Return a JSON pointer into the document.

    >>> pointer("paths", "/stats", "get")
    '#/paths/~1stats/get'
    """
    return "#" + "".join(f"/{str(key).replace('~', '~0').replace('/', '~1')}" for key in keys)


@cache
def _validator(at: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": _ROOT + at}, registry=_REGISTRY)


def problems(at: str, value: Any) -> list[str]:
    """Return what is wrong with a value by the schema at a JSON pointer."""
    return [f"{error.json_path}: {error.message}" for error in _validator(at).iter_errors(value)]


def schema_of(name: str) -> str:
    """Return where a named schema stands."""
    return pointer("components", "schemas", name)


def check_answer(
    method: str, path: str, status: int, *, content_type: str, body: bytes, headers: Any
) -> None:
    """Assert that an answer is as the contract says for its operation and status."""
    place: tuple[str | int, ...] = ("paths", path, method, "responses")
    answers = SPEC["paths"][path][method]["responses"]
    place = (*place, str(status) if str(status) in answers else "default")
    answer = answers[place[-1]]
    if "$ref" in answer:
        place = tuple(answer["$ref"].removeprefix("#/").split("/"))
        answer = resolve(answer)
    media_type = content_type.partition(";")[0]
    assert media_type in answer["content"], f"{method} {path} {status}: {media_type}"
    value = msgspec.json.decode(body) if "json" in media_type else body.decode()
    wrong = problems(pointer(*place, "content", media_type, "schema"), value)
    assert not wrong, f"{method} {path} {status}: {wrong}"
    for name, header in answer.get("headers", {}).items():
        assert name in headers
        schema = resolve(header)["schema"]
        value = int(headers[name]) if schema["type"] == "integer" else headers[name]
        Draft202012Validator(schema).validate(value)


@dataclass(frozen=True)
class Served:
    """A state service on a real socket."""

    url: str
    app: web.Application
    service: StateService


@contextlib.asynccontextmanager
async def served(folder: Path, **settings: Any) -> AsyncIterator[Served]:
    """Serve on a free port until the block ends; it is ready."""
    app = await create_app(Settings(database=str(folder / "state.db"), **settings))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        for _ in range(2000):
            if app[SERVICE].phase == "ready":
                break
            await asyncio.sleep(0.005)
        yield Served(f"http://{host}:{port}", app, app[SERVICE])
    finally:
        await runner.cleanup()
