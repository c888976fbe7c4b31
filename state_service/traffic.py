"""Requests by route, method and status, and how long they take: what the HTTP shell sees.

Outside of every other middleware, so that what those refuse is counted too. A label holds a route's
template, never the path that was asked for: that would be a user id, and a series for each.
"""

import time

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware
from prometheus_client import Counter, Histogram

from state_service.problems import Handler

_BUCKETS_SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
_NO_ROUTE = "none"
_OTHER_METHOD = "other"  # the parser lets many more through than HTTP has


class Traffic:
    """The requests since the start of the process."""

    def __init__(self) -> None:
        self.requests = Counter(
            "medianserve_http_requests",
            "Requests answered, by route, method and status.",
            ["route", "method", "status"],
            registry=None,
        )
        self.seconds = Histogram(
            "medianserve_http_request_seconds",
            "From a request's head being read to its answer being ready to be sent.",
            ["route", "method"],
            registry=None,
            buckets=_BUCKETS_SECONDS,
        )
        # The metrics' own look-up by labels costs more than all the rest.
        self._counter_of: dict[tuple[str, str, int], Counter] = {}
        self._histogram_of: dict[tuple[str, str], Histogram] = {}

    def middleware(self) -> Middleware:
        """Return the middleware that counts; it changes nothing."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            began = time.perf_counter()
            try:
                response = await handler(request)
            except web.HTTPException as answer:  # a redirection
                self.add(request, answer.status, time.perf_counter() - began)
                raise
            self.add(request, response.status, time.perf_counter() - began)
            return response

        return count

    def add(self, request: web.Request, status: int, seconds: float) -> None:
        """Count one answer."""
        resource = request.match_info.route.resource
        route = _NO_ROUTE if resource is None else resource.canonical
        method = request.method if request.method in hdrs.METH_ALL else _OTHER_METHOD
        counter = self._counter_of.get((route, method, status))
        if counter is None:
            counter = self.requests.labels(route, method, status)
            self._counter_of[route, method, status] = counter
        histogram = self._histogram_of.get((route, method))
        if histogram is None:
            histogram = self.seconds.labels(route, method)
            self._histogram_of[route, method] = histogram
        counter.inc()
        histogram.observe(seconds)
