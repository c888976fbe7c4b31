"""Questions about users: medians, statistics and scores of their windows, and who there is."""

import math
from typing import Any

import msgspec
from aiohttp import web

from state_service import checks, wire
from state_service.answering import answered
from state_service.app_keys import EVERYBODY, SERVICE
from state_service.bodies import invite_later, read_body
from state_service.listing import page_token, read_limit, read_users_question
from state_service.newest import WindowQuestion
from state_service.parameters import (
    check_percent_encoding,
    read_span,
    read_window_question,
)
from state_service.ranking import PageQuestion
from state_service.service import StateService

routes = web.RouteTableDef()


@routes.get(r"/users/{user_id:[^/]+}/median")
async def get_median(request: web.Request) -> web.Response:
    """Answer one user's exact rolling median; null for an unknown or idle user."""
    service = request.app[SERVICE]
    service.require_ready()
    question = read_window_question(request.query, service.settings)
    user_id = _user_id(service, request)
    summary = await answered(
        service.windows.median_question(user_id, service.clock(), question.window, question.at)
    )
    service.counters.median_requests += 1
    return _json(
        {
            "user_id": user_id,
            "median": summary.median,
            "count": summary.count,
            "window_seconds": question.window or service.settings.window_seconds,
            "newest_timestamp": summary.newest_timestamp,
        }
    )


@routes.get(r"/users/{user_id:[^/]+}/stats")
async def get_user_stats(request: web.Request) -> web.Response:
    """Answer count, minimum, maximum, mean, median and any quantiles of one user's window."""
    service = request.app[SERVICE]
    service.require_ready()
    question = read_window_question(request.query, service.settings)
    user_id = _user_id(service, request)
    summary = await answered(
        service.windows.question(
            user_id, service.clock(), question.window, question.at, question.quantiles
        )
    )
    return _json(
        {
            "user_id": user_id,
            "count": summary.count,
            "min": summary.min,
            "max": summary.max,
            "mean": summary.mean,
            "median": summary.median,
            "quantiles": [
                {"q": q, "value": value}
                for q, value in zip(question.quantiles, summary.quantiles, strict=True)
            ],
            "window_seconds": question.window or service.settings.window_seconds,
            "newest_timestamp": summary.newest_timestamp,
        }
    )


@routes.post("/medians", expect_handler=invite_later)
async def post_medians(request: web.Request) -> web.Response:
    """Answer many users' medians in one go, in the order asked for."""
    service = request.app[SERVICE]
    question = wire.decode_medians(await read_body(request), request.content_type, service.settings)
    columns = await answered(
        service.windows.medians_question(
            question.user_ids, service.clock(), question.window, question.at
        )
    )
    service.counters.median_requests += 1
    window_seconds = question.window or service.settings.window_seconds
    return _json(
        {
            "items": [
                {
                    "user_id": user_id,
                    "median": _or_none(median),
                    "count": count,
                    "window_seconds": window_seconds,
                    "newest_timestamp": _or_none(newest),
                }
                for user_id, median, count, newest in zip(
                    question.user_ids, *(column.tolist() for column in columns), strict=True
                )
            ]
        }
    )


@routes.delete(r"/users/{user_id:[^/]+}")
async def delete_user(request: web.Request) -> web.Response:
    """Forget a user: in memory, on disk, and what is replayed later. An unknown one too."""
    service = request.app[SERVICE]
    service.require_ready()
    user_id = _user_id(service, request)
    with service.one_more_in_flight():
        forgotten = await service.forget(user_id)
    return _json(
        {
            "user_id": user_id,
            "forgotten_events": forgotten.events,
            "forgotten_at": forgotten.forgotten_at,
        }
    )


@routes.get(r"/users/{user_id:[^/]+}/scores")
async def get_scores(request: web.Request) -> web.Response:
    """Answer the window itself, or all of a span that is kept, newest first."""
    service = request.app[SERVICE]
    service.require_ready()
    limit = read_limit(request.query, service.settings.max_listed, setting="max_listed")
    span = read_span(request.query)
    question = read_window_question(request.query, service.settings)
    user_id, now = _user_id(service, request), service.clock()
    if span is None:
        asked = service.windows.median_question(user_id, now, question.window, question.at)
    else:
        asked = service.windows.between_question(user_id, now, *span)
    newest, summary = await answered(WindowQuestion(asked, limit))
    since, until = span or (None, None)
    return _json(
        {
            "user_id": user_id,
            "count": summary.count,
            "scores": [
                {"timestamp": timestamp, "score": score}
                for timestamp, score in zip(*(column.tolist() for column in newest), strict=True)
            ],
            "window_seconds": None if span else question.window or service.settings.window_seconds,
            "since": since,
            "until": until,
            "newest_timestamp": summary.newest_timestamp,
        }
    )


@routes.get("/users")
async def get_users(request: web.Request) -> web.Response:
    """Answer the users with a score in the window, by count or median, a page at a time."""
    service = request.app[SERVICE]
    service.require_ready()
    question = read_users_question(request.query, service.settings)
    ranking = await request.app[EVERYBODY].ranking(question.by)
    users = await answered(
        PageQuestion(ranking, question.limit, question.order, question.after, question.min_count)
    )
    more = len(users) == question.limit
    place = ranking.place_of(users[-1]) if more else None
    return _json(
        {
            "users": len(ranking),
            "items": [
                {
                    "user_id": user.user_id,
                    "median": user.median,
                    "count": user.count,
                    "newest_timestamp": user.newest_timestamp,
                }
                for user in users
            ],
            "next_page_token": place and page_token(question, place),
            "window_seconds": service.settings.window_seconds,
        }
    )


def _user_id(service: StateService, request: web.Request) -> str:
    user_id = request.match_info["user_id"]
    if "%" in user_id:  # or it was `%25`
        check_percent_encoding(request.rel_url.raw_path)
    checks.check_user_id(user_id, service.settings)
    return user_id


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _json(body: dict[str, Any]) -> web.Response:
    return web.json_response(body=msgspec.json.encode(body))
