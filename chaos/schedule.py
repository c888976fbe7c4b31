"""What happens when: a pure function of the seed, so that a run can be repeated.

Kinds are dealt like cards: every kind comes once before one comes again. Every third round or so
has a second fault of another group at the same time, as faults have at night.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

_COMPANION_CHANCE = 1 / 3


class Kind(StrEnum):
    """A way to break something."""

    KILL_WORKER = "kill-worker"
    KILL_JVM = "kill-jvm"
    KILL_STATE = "kill-state"
    KILL_SUPERVISOR = "kill-supervisor"
    KILL_STACK = "kill-stack"
    RESTART = "restart"
    STOP_STATE = "stop-state"
    CUT = "cut"
    DELAY = "delay"
    THROTTLE = "throttle"
    RESET_REQUEST = "reset-request"
    RESET_ANSWER = "reset-answer"
    SWALLOW_REQUEST = "swallow-request"
    SWALLOW_ANSWER = "swallow-answer"
    FULL_DISK = "full-disk"
    FILE_LIMIT = "file-limit"
    SCALE = "scale"
    NEW_VERSION = "new-version"


@dataclass(frozen=True, slots=True)
class _Spec:
    """What a kind is drawn from. Two kinds of one group never happen at once."""

    group: str
    sentence: str  # of a fault's `amount` and `seconds`
    seconds: tuple[float, float] = (0.0, 0.0)
    amount: tuple[float, float] = (0.0, 0.0)


_SPECS = {
    Kind.KILL_WORKER: _Spec("process", "kill -9 a TorchServe worker"),
    Kind.KILL_JVM: _Spec("process", "kill -9 TorchServe's JVM"),
    Kind.KILL_STATE: _Spec("process", "kill -9 the state service"),
    Kind.KILL_SUPERVISOR: _Spec("process", "kill -9 supervisord, start the stack again"),
    Kind.KILL_STACK: _Spec("process", "kill -9 the whole stack, start it again"),
    Kind.RESTART: _Spec("process", "stop the stack in good order, start it again"),
    Kind.STOP_STATE: _Spec("process", "stop the state service for {seconds:.1f} s", (1.0, 6.0)),
    Kind.CUT: _Spec("link", "cut the connection for {seconds:.1f} s", (1.0, 4.0)),
    Kind.DELAY: _Spec(
        "link", "delay both ways by {amount:.2f} s for {seconds:.1f} s", (2.0, 4.0), (0.02, 1.5)
    ),
    Kind.THROTTLE: _Spec(
        "link", "throttle to {amount:,.0f} bytes/s for {seconds:.1f} s", (2.0, 4.0), (500, 20_000)
    ),
    Kind.RESET_REQUEST: _Spec(
        "link", "reset in each request after {amount:.0%} for {seconds:.1f} s", (1.0, 3.0), (0, 1)
    ),
    Kind.RESET_ANSWER: _Spec(
        "link", "reset in each answer after {amount:.0%} for {seconds:.1f} s", (1.0, 3.0), (0, 1)
    ),
    Kind.SWALLOW_REQUEST: _Spec(
        "link", "accept requests and say nothing for {seconds:.1f} s", (1.0, 4.0)
    ),
    Kind.SWALLOW_ANSWER: _Spec(
        "link", "pass requests, swallow answers for {seconds:.1f} s", (1.0, 4.0)
    ),
    Kind.FULL_DISK: _Spec("disk", "fill the disk for {seconds:.1f} s", (2.0, 8.0)),
    Kind.FILE_LIMIT: _Spec(
        "disk",
        "no file of ours beyond {amount:,.0f} bytes for {seconds:.1f} s",
        (1.0, 5.0),
        (0, 100_000),
    ),
    Kind.SCALE: _Spec("management", "scale to {amount:.0f} workers and back", amount=(3, 4)),
    Kind.NEW_VERSION: _Spec("management", "register another version, drain and delete the old one"),
}
assert _SPECS.keys() == set(Kind)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: how long it lasts, and how bad it is in what its sentence says."""

    kind: Kind
    seconds: float
    amount: float

    def __str__(self) -> str:
        return _SPECS[self.kind].sentence.format(seconds=self.seconds, amount=self.amount)


@dataclass(frozen=True, slots=True)
class Round:
    """Faults that begin together, after a pause."""

    pause_seconds: float
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        return " + ".join(map(str, self.faults))


def deal(seed: int, rounds: int, kinds: Iterable[Kind], seconds_between: float) -> list[Round]:
    """Return so many rounds of faults of these kinds; the same for a seed.

    The pause before each is drawn from half to one and a half times `seconds_between`.
    """
    chance = random.Random(seed)  # noqa: S311 - no secret
    known = [kind for kind in Kind if kind in set(kinds)]
    deck: list[Kind] = []
    dealt = []
    for _ in range(rounds):
        if not deck:
            deck = chance.sample(known, len(known))
        chosen = [deck.pop()]
        others = [kind for kind in deck if _SPECS[kind].group != _SPECS[chosen[0]].group]
        if others and chance.random() < _COMPANION_CHANCE:
            chosen.append(others[-1])
            deck.remove(others[-1])
        pause = seconds_between * chance.uniform(0.5, 1.5)
        dealt.append(Round(pause, tuple(_draw(kind, chance) for kind in chosen)))
    return dealt


def _draw(kind: Kind, chance: random.Random) -> Fault:
    spec = _SPECS[kind]
    return Fault(kind, chance.uniform(*spec.seconds), chance.uniform(*spec.amount))
