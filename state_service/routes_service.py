"""Questions about the service itself: statistics and health."""

import dataclasses
import math
from typing import Any

import msgspec
from aiohttp import web

from state_service.app_keys import CENSUS, SERVICE
from state_service.census import Census
from state_service.durability import durability_in_words
from state_service.errors import NotDurableError, UnavailableError
from state_service.service import StateService
from state_service.settings import LIMITS

routes = web.RouteTableDef()


@routes.get("/stats")
async def get_stats(request: web.Request) -> web.Response:
    """Tell what has happened since this process started, and what it holds."""
    stats = await stats_of(request.app[SERVICE], request.app[CENSUS])
    return web.json_response(body=msgspec.json.encode(stats))


async def stats_of(service: StateService, census: Census) -> dict[str, Any]:
    """Return what `/stats` and the live page show."""
    headcount, middle = await census.headcount(), await census.middle()
    counters, settings = service.counters, service.settings
    return {
        "ingest_requests": counters.ingest_requests,
        "events_processed": counters.events_processed,
        "median_requests": counters.median_requests,
        "avg_ingest_latency_seconds": counters.avg_ingest_latency_seconds,
        "users": headcount.users,
        "live_events": headcount.live_events,
        "counted_seconds_ago": census.age_seconds(headcount),
        "median_of_medians": {
            "median": middle.median,
            "users": middle.users,
            "seconds_ago": census.age_seconds(middle),
        },
        "held_users": service.windows.active_users,
        "held_events": service.windows.live_events,
        "accepted": counters.accepted,
        "late": counters.late,
        "future": counters.future,
        "duplicates": counters.duplicates,
        "skipped": counters.skipped,
        "forgotten": counters.forgotten,
        "requests_refused": counters.requests_refused,
        "limit_hits": {name: counters.limit_hits[name] for name in LIMITS},
        "users_forgotten": counters.users_forgotten,
        "tombstones": len(service.state.tombstones),
        "batch_keys": len(service.keys),
        "uptime_seconds": service.clock() - service.started_at,
        "phase": service.phase,
        "window_seconds": settings.window_seconds,
        "clock": settings.clock,
        "event_clock": event_clock_of(service),
        "durability": {
            "mode": settings.durability,
            "meaning": durability_in_words(service),
        },
        "journal": {**dataclasses.asdict(service.commits), "rows": service.journal.rows},
        "snapshot": {
            **dataclasses.asdict(service.snapshots),
            "database_bytes": service.store.size_bytes(),
        },
        "wal": {
            "bytes": service.store.log_bytes(),
            "held_seconds": service.log_watch.held_seconds,
            "held_by": service.log_watch.reason,
        },
        "models": service.models.summary(),
        "spool": service.spools.summary(),
        "stages": service.stages.summary(),
        "loop_lag_seconds": service.loop_lag.worst_seconds,
        "restore": dataclasses.asdict(service.restored),
    }


def event_clock_of(service: StateService) -> dict[str, float | None] | None:
    """Return where the time of a replay stands; None under the wall clock."""
    clock = service.windows.event_clock
    if clock is None:
        return None
    started = math.isfinite(clock.time)
    return {
        "time": clock.time if started else None,
        "behind_seconds": service.clock() - clock.time if started else None,
        "waiting_seconds": clock.waiting_seconds,
    }


@routes.post("/snapshot")
async def post_snapshot(request: web.Request) -> web.Response:
    """Have a snapshot taken now; /stats tells when it is done."""
    service = request.app[SERVICE]
    service.require_ready()
    service.start_snapshot()
    return web.json_response({"status": "started"}, status=202)


@routes.get("/healthz")
async def get_healthz(_request: web.Request) -> web.Response:
    """Tell that the process lives."""
    return web.json_response({"status": "alive"})


@routes.get("/readyz")
async def get_readyz(request: web.Request) -> web.Response:
    """Tell whether requests are served and the database can be written; 503 with the reason."""
    service = request.app[SERVICE]
    service.require_ready()
    if service.commits.error is not None:
        raise NotDurableError(f"the journal cannot be written: {service.commits.error}")
    if service.snapshots.error is not None:
        raise UnavailableError(f"snapshots fail: {service.snapshots.error}", "snapshots_fail")
    return web.json_response({"status": "ready"})
