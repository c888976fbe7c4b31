"""`/openapi.json` and `/docs`: the contract, and Swagger UI from a package, without a network."""

from pathlib import Path
from typing import Any

import msgspec
import swagger_ui
import yaml
from aiohttp import web

SPEC_PATH = Path(__file__).with_name("openapi.yaml")
_FILES = Path(swagger_ui.__file__).with_name("static")


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

    # The package's own way to its files asks the disk for whatever a client names, and a name that
    # is too long fails. This table is found first.
    files = {path.name: path for path in _FILES.iterdir()}

    async def get_file(request: web.Request) -> web.FileResponse:
        path = files.get(request.match_info["name"])
        if path is None:
            raise web.HTTPNotFound
        return web.FileResponse(path)

    app.router.add_get("/openapi.json", get_openapi)
    app.router.add_get("/docs/static/{name:.*}", get_file)
    swagger_ui.api_doc(
        app,
        config=spec,
        url_prefix="/docs",
        title="medianserve",
        host_inject=False,
        parameters={"validatorUrl": "null"},  # Swagger UI would ask a public validator
    )
