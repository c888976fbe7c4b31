"""The aiohttp application: resources, middlewares, routes. `create_app` is the only way in."""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from state_service import documentation, routes_scores, routes_service, routes_users
from state_service.access import GUARD, Guard
from state_service.app_keys import BACKGROUND, SERVICE
from state_service.connections import HEARD, note_connection
from state_service.cross_origin import CrossOrigin
from state_service.headers import add_headers
from state_service.ingest import Ingest, add_ingest
from state_service.metrics import add_metrics
from state_service.problems import refuse_unknown_parameters, render_problems
from state_service.routes_dashboard import add_dashboard
from state_service.service import StateService
from state_service.settings import Settings
from state_service.torchserve_addresses import check_addresses
from state_service.traffic import Traffic


async def create_app(settings: Settings) -> web.Application:
    """Open the database and build the application around it.

    Raises `SettingsError` for tokens, origins and addresses that cannot be used, `StorageError`
    when the database cannot.
    """
    check_addresses(settings)
    guard = Guard(settings)
    cross_origin = CrossOrigin(settings, guard)
    service = await StateService.open(settings)
    try:
        return _application(service, settings, guard, cross_origin)
    except BaseException:
        await service.store.close()  # its thread would keep the process alive
        raise


def _application(
    service: StateService, settings: Settings, guard: Guard, cross_origin: CrossOrigin
) -> web.Application:
    traffic = Traffic()
    app = web.Application(
        client_max_size=settings.max_body_bytes,
        middlewares=[
            note_connection,
            traffic.middleware(),
            render_problems,
            guard.middleware(),
            cross_origin.middleware(),
            refuse_unknown_parameters,
        ],
    )
    app[SERVICE] = service
    app[GUARD] = guard
    app[HEARD] = set()
    app.cleanup_ctx.append(_running_service)
    app.on_shutdown.append(_refuse_further_requests)
    app.on_response_prepare.append(add_headers)
    app.on_response_prepare.append(cross_origin.add_headers)
    app.add_routes(routes_scores.routes)
    app.add_routes(routes_users.routes)
    app.add_routes(routes_service.routes)
    ingest = Ingest(settings)
    add_ingest(app, ingest)
    add_metrics(app, traffic, ingest)
    documentation.add_documentation(app, settings)
    add_dashboard(app)
    return app


async def _running_service(app: web.Application) -> AsyncIterator[None]:
    """Restore in the background, so that /readyz can tell how far it is; then record."""
    service = app[SERVICE]
    app[BACKGROUND] = asyncio.create_task(service.run())
    yield
    service.stop()
    await asyncio.wait({app[BACKGROUND]})  # it uses the database, which closes next
    await service.close()


async def _refuse_further_requests(app: web.Application) -> None:
    """Come before requests in flight are waited for: those without their body yet are refused."""
    app[SERVICE].stop()
