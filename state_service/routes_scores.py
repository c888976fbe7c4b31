"""`POST /scores`: the way in."""

from typing import Any

import msgspec
from aiohttp import web

from state_service import wire
from state_service.app_keys import SERVICE
from state_service.bodies import invite_later, read_body
from state_service.units import hint_of_future

routes = web.RouteTableDef()


@routes.post("/scores", expect_handler=invite_later)
async def post_scores(request: web.Request) -> web.Response:
    """Take batches of scored events, all or none; a known key is acknowledged, not applied."""
    service = request.app[SERVICE]
    body = await read_body(request)
    with service.stages.measure("receive"):  # without the wait for a slow client's body
        scores = wire.decode_scores(body, request.content_type, service.settings)
    outcomes = await service.record(scores.batches)
    service.stages.add(scores.stages)
    if scores.spool is not None:
        service.spools.add(scores.spool, service.clock())
    if scores.model is not None:
        events = sum(outcome.events for outcome in outcomes if not outcome.duplicate)
        service.models.add(scores.model, events, service.clock())
    fresh = [outcome.counts for outcome in outcomes if not outcome.duplicate]
    answer: dict[str, Any] = {
        "accepted": sum(counts.accepted for counts in fresh),
        "late": sum(counts.late for counts in fresh),
        "future": sum(counts.future for counts in fresh),
        "forgotten": sum(outcome.forgotten for outcome in outcomes),
        "duplicates": sum(outcome.events for outcome in outcomes if outcome.duplicate),
        "batches": [
            {**outcome.counts._asdict(), "duplicate": outcome.duplicate} for outcome in outcomes
        ],
    }
    if answer["future"] and (hint := hint_of_future(scores.newest_timestamp())):
        answer["hint"] = hint
    return web.json_response(body=msgspec.json.encode(answer))
