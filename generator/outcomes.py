"""What one attempt's answer means, and how long to wait before the next one. Pure.

ACKNOWLEDGED   counted, with scores: final, also when no event was fit to be kept
NOT_COUNTED    surely not counted, worth another try (503, 429, no connection)
REFUSED        surely not counted, and no retry will change that (other 4xx)
IN_DOUBT       nobody knows: it may or may not have been counted (500, 507, 503 not_confirmed,
               dropped, timed out)
"""

import enum
from dataclasses import dataclass

import msgspec

BACKOFF_FIRST_SECONDS = 0.1
BACKOFF_LONGEST_SECONDS = 3.0
RETRY_AFTER_LONGEST_SECONDS = 5.0
_CODE_LONGEST = 64


class Verdict(enum.Enum):
    """Whether an attempt was counted, and whether another may help."""

    ACKNOWLEDGED = enum.auto()
    NOT_COUNTED = enum.auto()
    REFUSED = enum.auto()
    IN_DOUBT = enum.auto()


class ScorerAnswer(msgspec.Struct):
    """The parts of the scorer's 200 answer that matter here; other fields are not decoded."""

    recorded: str
    scores: list[float | None]
    late: int = 0
    future: int = 0


class DryRunAnswer(msgspec.Struct):
    """The parts of a dry run's 200 answer that the probe looks at."""

    processed: int
    errors: list["Problem"] = msgspec.field(default_factory=list)


class Problem(msgspec.Struct):
    """The parts of a problem document (RFC 9457), or of TorchServe's own error, that matter."""

    code: str | int = ""
    detail: str = ""
    type: str = ""
    message: str = ""

    @property
    def name(self) -> str:
        """A short stable name: ours is in `code`; TorchServe repeats the status there."""
        return self.code if isinstance(self.code, str) else self.type

    @property
    def sentence(self) -> str:
        """What a person should read, perhaps empty."""
        return self.detail or self.message


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attempt's end: `reason` names a failure for the reader, `answer` is for ACKNOWLEDGED."""

    verdict: Verdict
    reason: str = ""
    retry_after_seconds: float = 0.0
    answer: ScorerAnswer | None = None


TIMED_OUT = Outcome(Verdict.IN_DOUBT, "timeout")
DROPPED = Outcome(Verdict.IN_DOUBT, "connection dropped")
NO_CONNECTION = Outcome(Verdict.NOT_COUNTED, "no connection")
GIVEN_UP = Outcome(Verdict.IN_DOUBT, "given up when interrupted")

_decode_answer = msgspec.json.Decoder(ScorerAnswer).decode
_decode_dry_run = msgspec.json.Decoder(DryRunAnswer).decode
_decode_problem = msgspec.json.Decoder(Problem).decode


def judge(status: int, retry_after: str | None, body: bytes, batch: int) -> Outcome:
    """Say what an answer to a request of `batch` events means. Never raises."""
    if status == 200:
        return _judge_success(body, batch)
    problem = read_problem(body)
    reason = f"{status} {problem.name}".rstrip()[:_CODE_LONGEST]
    if status in {429, 503} and problem.code != "not_confirmed":
        return Outcome(Verdict.NOT_COUNTED, reason, _seconds(retry_after))
    # 408 is a timeout seen from the other side: the work may have been done.
    if 400 <= status < 500 and status != 408:
        return Outcome(Verdict.REFUSED, reason)
    return Outcome(Verdict.IN_DOUBT, reason, _seconds(retry_after))


def read_problem(body: bytes) -> Problem:
    """Read an error body as far as it can be read; an empty Problem when it isn't one."""
    try:
        return _decode_problem(body)
    except msgspec.DecodeError:
        return Problem()


def complaint_of(dry_run_answer: bytes) -> str:
    """Say why the one event of a dry run was not scored; empty when it was."""
    try:
        answer = _decode_dry_run(dry_run_answer)
    except msgspec.DecodeError:
        return "its answer is not understood"
    if answer.processed:
        return ""
    return answer.errors[0].detail if answer.errors else "it does not say why"


def retry_delay_seconds(attempt: int, index: int, retry_after_seconds: float) -> float:
    """How long to wait after failed attempt number `attempt` (from 0) of request `index`.

    Doubles each time and honours Retry-After, both up to a cap; at least half of it is waited.
    """
    backoff = min(BACKOFF_LONGEST_SECONDS, BACKOFF_FIRST_SECONDS * 2.0 ** min(attempt, 16))
    # Multiples of the golden ratio fill 0..1 evenly, so neighbours that failed together come back
    # apart, and a run stays repeatable where random jitter would not.
    spread = 0.5 + 0.5 * (index * 0.618033988749895 % 1.0)
    return max(backoff * spread, min(retry_after_seconds, RETRY_AFTER_LONGEST_SECONDS))


def _judge_success(body: bytes, batch: int) -> Outcome:
    try:
        answer = _decode_answer(body)
    except msgspec.DecodeError:
        return Outcome(Verdict.IN_DOUBT, "unreadable answer")
    if len(answer.scores) != batch:
        return Outcome(Verdict.IN_DOUBT, "answer with a wrong number of scores")
    if answer.recorded not in {"stored", "spooled", "nothing"}:
        return Outcome(Verdict.REFUSED, f"recorded: {answer.recorded}"[:_CODE_LONGEST])
    return Outcome(Verdict.ACKNOWLEDGED, answer=answer)


def _seconds(retry_after: str | None) -> float:
    # The date form of Retry-After is left to the back-off: no service here sends it.
    if retry_after and retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    return 0.0
