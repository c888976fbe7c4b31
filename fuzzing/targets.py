"""What a hostile body is for: a way in, by program and media type."""

from enum import Enum


class Target(Enum):
    """A way in."""

    JSON = "application/json"
    NDJSON = "application/x-ndjson"
    ARROW = "application/vnd.apache.arrow.stream"
    SCORES = "POST /scores, application/json"
    PACKED = "POST /scores, application/msgpack"
    MEDIANS = "POST /medians, application/json"
    QUERY = "GET /users/{user_id}/stats?"

    @property
    def of_scorer(self) -> bool:
        """Whether it is TorchServe's; the others are the state service's."""
        return self in SCORER_TARGETS

    @property
    def content_type(self) -> str:
        """The media type of its bodies."""
        return self.value.rpartition(" ")[2]

    @property
    def path(self) -> str:
        """Where its bodies are posted."""
        return "/predictions/scorer" if self.of_scorer else self.value.split()[1].rstrip(",")


SCORER_TARGETS = (Target.JSON, Target.NDJSON, Target.ARROW)
STATE_BODY_TARGETS = (Target.SCORES, Target.PACKED, Target.MEDIANS)
