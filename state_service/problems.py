"""Failures -> RFC 9457 problems: the middleware that renders them, and that of the parameters."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

import msgspec
import structlog
from aiohttp import web

from state_service.advice import instead_of, instead_of_method
from state_service.app_keys import SERVICE
from state_service.errors import ServiceError, reason_phrase
from state_service.parameters import refuse_unknown

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = structlog.get_logger()


@web.middleware
async def render_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what a handler raises into a problem with a stable `code`."""
    try:
        return await handler(request)
    except ServiceError as error:
        if error.limit is not None:
            request.app[SERVICE].counters.hit(error.limit)
        return _problem(request, error.status, error.code, error.detail)
    except web.HTTPRequestEntityTooLarge:
        request.app[SERVICE].counters.hit("max_body_bytes")
        limit = request.app[SERVICE].settings.max_body_bytes
        return _problem(request, 413, "too_large", f"the body is over {limit} bytes: send several")
    except web.HTTPException as error:
        if error.status < 400:
            raise
        code = HTTPStatus(error.status).name.lower()
        response = _problem(request, error.status, code, _advice(request, error))
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except Exception:
        log.exception(
            "request failed",
            method=request.method,
            request_id=request.headers.get("X-Request-ID"),
            traceparent=request.headers.get("traceparent"),
        )
        return _problem(request, 500, "internal_error", "the service failed; its log says why")


def _advice(request: web.Request, error: web.HTTPException) -> str:
    path = request.rel_url.raw_path
    if isinstance(error, web.HTTPMethodNotAllowed):
        return instead_of_method(request.method, path, error.allowed_methods)
    if isinstance(error, web.HTTPNotFound):
        return instead_of(path)
    return error.reason  # none that aiohttp is known to raise


@web.middleware
async def refuse_unknown_parameters(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Hold each request to the parameters that its route takes."""
    resource = request.match_info.route.resource
    if request.query_string and resource is not None:
        method = "GET" if request.method == "HEAD" else request.method
        refuse_unknown(request.query, method, resource.canonical)
    return await handler(request)


def _problem(request: web.Request, status: int, code: str, detail: str) -> web.Response:
    service = request.app[SERVICE]
    service.counters.requests_refused += 1
    body = {
        "type": "about:blank",
        "title": reason_phrase(status),
        "status": status,
        "code": code,
        "detail": detail,
    }
    response = web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/problem+json"
    )
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="medianserve"'
    if status == 503:
        response.headers["Retry-After"] = str(service.settings.retry_after_seconds)
    return response
