"""Which models have scored, as the handlers say with their scores."""

from typing import Any

import msgspec

from state_service.wire import ModelReport

MAX_MODELS = 32  # that are remembered; the one that has been silent for longest is forgotten first


class Models:
    """What each model that has scored since the start is, how much it scored, and when last."""

    def __init__(self) -> None:
        self._events: dict[ModelReport, int] = {}  # the one that scored last is last
        self._last_at: dict[ModelReport, float] = {}

    def add(self, model: ModelReport, events: int, now: float) -> None:
        """Count events that a model has scored."""
        self._events[model] = self._events.pop(model, 0) + events
        self._last_at[model] = now
        if len(self._events) > MAX_MODELS:
            oldest = next(iter(self._events))
            del self._events[oldest], self._last_at[oldest]

    def summary(self) -> list[dict[str, Any]]:
        """Return them, the one that scored last first."""
        return [
            {**msgspec.structs.asdict(model), "events": events, "last_at": self._last_at[model]}
            for model, events in reversed(self._events.items())
        ]
