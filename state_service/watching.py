"""One user as the live page shows it: asked of the service, answered off the event loop."""

import contextlib
import math

from state_service.answering import answered
from state_service.errors import HistoryError
from state_service.service import StateService
from state_service.user_view import QUANTILES, TrailPoint, UserView, ViewQuestion
from state_service.viewers import Watched

_SCORES_DRAWN = 1_000
_TRAIL_POINTS = 60
_LARGE = 20_000  # scores: beyond, a point of the trail takes its milliseconds
_FEW_POINTS = 15


async def user_view(
    service: StateService, watched: Watched, *, with_trail: bool = False
) -> UserView:
    """Return what a user's window holds now; `with_trail`: and held, as far back as is kept.

    Raises `UnavailableError`.
    """
    service.require_ready()
    now = service.clock()
    question = service.windows.question(watched.user_id, now, watched.window, quantiles=QUANTILES)
    end = service.windows.reference(now)
    window_seconds = watched.window or service.settings.window_seconds
    view = await answered(
        ViewQuestion(
            question,
            watched.user_id,
            end if math.isfinite(end) else now,
            window_seconds,
            _SCORES_DRAWN,
        )
    )
    if with_trail and question.size and math.isfinite(end):
        view.trail = await _trail(service, watched, end, question.size)
    return view


async def _trail(
    service: StateService, watched: Watched, end: float, size: int
) -> list[TrailPoint]:
    """Return the window at moments before `end`, as far back as scores are kept."""
    settings = service.settings
    shorter = settings.window_seconds - (watched.window or settings.window_seconds)
    seconds = min(shorter + settings.history_seconds, settings.window_seconds)
    points = _TRAIL_POINTS if size <= _LARGE else _FEW_POINTS
    trail = []
    for step in range(points, 0, -1) if seconds > 0 else ():
        at = end - seconds * step / points
        with contextlib.suppress(HistoryError):  # time has gone on since
            question = service.windows.question(
                watched.user_id, service.clock(), watched.window, at, QUANTILES
            )
            trail.append(TrailPoint.of(at, await answered(question)))
    return trail
