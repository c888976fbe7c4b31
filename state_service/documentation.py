"""`/openapi.json` and `/docs`: the contract, and Swagger UI from a package, without a network."""

from pathlib import Path
from typing import Any

import msgspec
import yaml
from aiohttp import web
from swagger_ui import api_doc

SPEC_PATH = Path(__file__).with_name("openapi.yaml")


def load_spec() -> dict[str, Any]:
    """Return openapi.yaml as a document."""
    spec: dict[str, Any] = yaml.safe_load(SPEC_PATH.read_text())
    return spec


def add_documentation(app: web.Application) -> None:
    """Serve the spec and its Swagger UI."""
    spec = load_spec()
    encoded = msgspec.json.encode(spec)

    async def get_openapi(_request: web.Request) -> web.Response:
        return web.json_response(body=encoded)

    app.router.add_get("/openapi.json", get_openapi)
    api_doc(
        app,
        config=spec,
        url_prefix="/docs",
        title="medianserve",
        host_inject=False,
        parameters={"validatorUrl": "null"},  # Swagger UI would ask a public validator
    )
