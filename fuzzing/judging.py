"""What a server may answer to hostile requests, who answered, and what its log may hold. Pure."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from fuzzing.framing import Sending
from fuzzing.talking import Answer, Outcome
from fuzzing.tokens import FORGED

# 503s that the contract names: not now, and nothing is wrong with the service.
_DOCUMENTED_503 = {"busy", "capacity", "not_recorded", "not_confirmed", "restoring", "stopping"}

_OURS_OF = {"scorer": "handler", "state": "service"}
OURS = frozenset(_OURS_OF.values())
_KEPT_BYTES = 2000

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# What TorchServe writes: its log's lines, Java's stack traces after them, a few at the start.
_TORCHSERVE_LINE = re.compile(
    r"\d{4}-\d\d-\d\dT[\d:,]+ (WARN|ERROR|FATAL) \w+: "
    r"|\tat [\w.$<>/]+\(|(Caused by: )?(\w+\.)+\w+(Exception|Error)\b"
    r"|\t\.\.\. \d+ more|\tSuppressed: |WARNING: |nvidia-smi |Model server started"
)


def who_answered(answer: Answer, server: str) -> str:
    """Tell which part of a server wrote an answer, by its form.

    `server` is "scorer" or "state". Ours are the handler and the service; the others are the front
    end's own (TorchServe, netty) and aiohttp's.
    """
    if answer.content_type == "application/problem+json" or answer.status == 200:
        return _OURS_OF[server]
    if server == "scorer":
        return "TorchServe" if {"code", "type", "message"} <= set(_fields(answer)) else "netty"
    return "aiohttp"


def _fields(answer: Answer) -> dict[str, object]:
    try:
        return msgspec.json.decode(answer.body, type=dict[str, object])
    except msgspec.DecodeError:
        return {}


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with an exchange, and by whose doing: `OURS`, or a part that is not."""

    by: str
    what: str
    name: str
    sent: bytes

    @property
    def ours(self) -> bool:
        """Whether it is for us to mend."""
        return self.by in OURS


def faults(sending: Sending, outcome: Outcome, server: str) -> Iterator[Fault]:
    """Yield what is wrong with what came back. Silence and a lost answer count as ours."""
    ours = _OURS_OF[server]

    def fault(by: str, what: str) -> Fault:
        return Fault(by, what, sending.name, sending.raw[:_KEPT_BYTES])

    if outcome.silent:
        yield fault(ours, f"silence for {outcome.seconds:.0f} s")
    if sending.ordinary and outcome.closed and not outcome.answers:
        yield fault(ours, "closed without an answer")
    for answer in outcome.answers:
        by = who_answered(answer, server)
        code = _fields(answer).get("code")
        if answer.status >= 500 and not (answer.status == 503 and code in _DOCUMENTED_503):
            yield fault(by, f"{answer.status}: {answer.body[:300]!r}")
        whole = answer.length == len(answer.body)
        if "json" in answer.content_type and whole and answer.length:
            try:
                msgspec.json.decode(answer.body)
            except msgspec.DecodeError as error:
                yield fault(by, f"{answer.status} is not JSON: {error}")


def log_faults(lines: Iterable[str], *, json_lines: bool) -> Iterator[str]:
    """Yield lines of a log that a client has had a hand in, and those of no known form."""
    for line in lines:
        text = line.rstrip("\n")
        if _CONTROL.search(text):
            yield f"a control character: {text[:200]!r}"
        elif text.lstrip().startswith(FORGED):
            yield f"a forged line: {text[:200]!r}"
        elif json_lines and not _is_json(text):
            yield f"not JSON: {text[:200]!r}"
        elif not json_lines and text and not (_TORCHSERVE_LINE.match(text) or _is_json(text)):
            yield f"of no known form: {text[:200]!r}"


def _is_json(line: str) -> bool:
    if line.startswith("state service listening on "):
        return True
    try:
        msgspec.json.decode(line)
    except msgspec.DecodeError:
        return False
    return True
