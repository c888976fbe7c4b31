"""`/openapi.json` and `/docs`: the contract, and Swagger UI from a package, without a network."""

from pathlib import Path
from typing import Any

import msgspec
import yaml
from aiohttp import web
from swagger_ui.core import ApplicationDocument

from state_service.headers import page_policy
from state_service.settings import Settings

SPEC_PATH = Path(__file__).with_name("openapi.yaml")


def load_spec() -> dict[str, Any]:
    """Return openapi.yaml as a document."""
    spec: dict[str, Any] = yaml.safe_load(SPEC_PATH.read_text())
    return spec


def add_documentation(app: web.Application, settings: Settings) -> None:
    """Serve the spec and its Swagger UI.

    All addresses in them are relative to themselves, so that they hold behind a proxy that puts the
    service below a path of its own; but for TorchServe's, which is this stack's.
    """
    spec = load_spec()
    if shown := settings.torchserve_public_url or settings.torchserve_url:
        for server in _other_servers(spec):
            server["url"] = shown.rstrip("/")
    encoded = msgspec.json.encode(spec)
    ui = ApplicationDocument(
        app,
        config=spec,
        url_prefix="/docs",
        title="medianserve",
        parameters={"validatorUrl": "null"},  # Swagger UI would ask a public validator
    )
    servers = tuple(server["url"] for server in _other_servers(spec))
    # A browser takes what is relative from the last slash of the page's own address on.
    pages = {
        "/docs": _relative(ui.doc_html, "docs/", "openapi.json"),
        "/docs/": _relative(ui.doc_html, "", "../openapi.json"),
    }
    policies = {path: page_policy(page, servers) for path, page in pages.items()}

    async def get_openapi(_request: web.Request) -> web.Response:
        return web.json_response(body=encoded)

    async def get_docs(request: web.Request) -> web.Response:
        headers = {"Content-Security-Policy": policies[request.path]}
        return web.Response(text=pages[request.path], content_type="text/html", headers=headers)

    # A table knows no paths: what clients name is never asked of the disk.
    files = {path.name: path for path in Path(ui.static_dir).iterdir()}

    async def get_file(request: web.Request) -> web.FileResponse:
        path = files.get(request.match_info["name"])
        if path is None:
            raise web.HTTPNotFound
        return web.FileResponse(path)

    app.router.add_get("/openapi.json", get_openapi)
    app.router.add_get("/docs", get_docs)
    app.router.add_get("/docs/", get_docs)
    app.router.add_get("/docs/static/{name:.*}", get_file)


def _relative(page: str, folder: str, spec: str) -> str:
    """Return the page with its files below `folder` and the document at `spec`."""
    return page.replace('"/docs/static/', f'"{folder}static/').replace(
        '"/docs/swagger.json"', f'"{spec}"'
    )


def _other_servers(spec: dict[str, Any]) -> list[dict[str, str]]:
    """Return the servers that "Try it out" asks besides this one."""
    return [server for item in spec["paths"].values() for server in item.get("servers", [])]
