"""`/openapi.json` and `/docs`: the contract, and Swagger UI from a package, without a network."""

from pathlib import Path
from typing import Any

import msgspec
import yaml
from aiohttp import web
from swagger_ui.core import ApplicationDocument

from state_service.headers import page_policy

SPEC_PATH = Path(__file__).with_name("openapi.yaml")


def load_spec() -> dict[str, Any]:
    """Return openapi.yaml as a document."""
    spec: dict[str, Any] = yaml.safe_load(SPEC_PATH.read_text())
    return spec


def add_documentation(app: web.Application) -> None:
    """Serve the spec and its Swagger UI."""
    spec = load_spec()
    encoded = msgspec.json.encode(spec)
    ui = ApplicationDocument(
        app,
        config=spec,
        url_prefix="/docs",
        title="medianserve",
        parameters={"validatorUrl": "null"},  # Swagger UI would ask a public validator
    )
    page: str = ui.doc_html
    policy = page_policy(page, _other_servers(spec))

    async def get_openapi(_request: web.Request) -> web.Response:
        return web.json_response(body=encoded)

    async def get_docs(_request: web.Request) -> web.Response:
        headers = {"Content-Security-Policy": policy}
        return web.Response(text=page, content_type="text/html", headers=headers)

    # A table knows no paths: what clients name is never asked of the disk.
    files = {path.name: path for path in Path(ui.static_dir).iterdir()}

    async def get_file(request: web.Request) -> web.FileResponse:
        path = files.get(request.match_info["name"])
        if path is None:
            raise web.HTTPNotFound
        return web.FileResponse(path)

    app.router.add_get("/openapi.json", get_openapi)
    app.router.add_get("/docs/swagger.json", get_openapi)  # where the page looks for it
    app.router.add_get("/docs", get_docs)
    app.router.add_get("/docs/", get_docs)
    app.router.add_get("/docs/static/{name:.*}", get_file)


def _other_servers(spec: dict[str, Any]) -> tuple[str, ...]:
    """Return the servers that "Try it out" asks besides this one."""
    servers = [server for item in spec["paths"].values() for server in item.get("servers", [])]
    return tuple(server["url"] for server in servers)
