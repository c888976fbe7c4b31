"""Hostile requests at a server that runs, from several connections, a good client beside them."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from random import Random

from fuzzing import framing
from fuzzing.decoding import Hostile
from fuzzing.framing import Sending, request
from fuzzing.grammar import Grammar
from fuzzing.judging import Fault, faults, who_answered
from fuzzing.running import by_hand, drawn
from fuzzing.talking import Talker
from fuzzing.targets import Target
from fuzzing.tokens import TEXTS

CONNECTIONS = 16
_MOST_FAULTS = 200


@dataclass
class Report:
    """What was sent to a server and what became of it."""

    server: str
    sent: int = 0
    answers: Counter[str] = field(default_factory=Counter)  # by who answered, and status
    faults: list[Fault] = field(default_factory=list)
    slowest_seconds: float = 0.0
    slowest: str = ""


def sendings(
    server: str, count: int, seed: int, now: float, *, by_hand_too: bool = True
) -> Iterator[Sending]:
    """Yield `count` sendings for "scorer" or "state".

    Odd framing first, then the corpus if `by_hand_too`, then drawn bodies with addresses among
    them. Good parts are stamped around `now`, epoch seconds.
    """
    random = Random(f"live {seed}")  # noqa: S311 - no secret
    corpus = by_hand(now) if by_hand_too else iter(())
    return islice(_all(server, random, seed, now, corpus), count)


def _all(
    server: str, random: Random, seed: int, now: float, corpus: Iterator[Hostile]
) -> Iterator[Sending]:
    targets = [t for t in Target if t.of_scorer == (server == "scorer") and t is not Target.QUERY]
    for target in targets:
        good = Grammar(Random(1), 0.0, now).body(target)  # noqa: S311 - no secret
        yield from framing.oddities(target.path, target.content_type, good)
    for item in corpus:
        if item.target in targets:
            yield _posted(item.name, item.target, item.body, item.headers)
    queries = (item.body for item in drawn(f"queries {seed}", now) if item.target is Target.QUERY)
    paths = framing.addresses(random, TEXTS, queries)
    for item in drawn(f"bodies {seed}", now):
        if item.target in targets:
            yield _posted(item.name, item.target, item.body, item.headers)
        if random.random() < 0.05:
            path = next(paths)
            yield Sending(f"GET {path[:60]!r}", request("GET", path), ordinary=True)


def _posted(
    name: str, target: Target, body: bytes, headers: tuple[tuple[str, str], ...]
) -> Sending:
    # What cannot stand in a header is sent by `framing`, where no answer of the server's is due.
    clean = tuple((name, "".join(c for c in text if " " <= c <= "~")) for name, text in headers)
    raw = request("POST", target.path, body, (("Content-Type", target.content_type), *clean))
    return Sending(f"{target.name} {name}", raw, ordinary=True)


async def attack(
    server: str,
    address: tuple[str, int],
    what: Iterator[Sending],
    tell: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Send everything; look at every answer. `tell` hears of it every few seconds."""
    report = Report(server)
    told = time.monotonic()
    drawing = asyncio.Lock()

    async def draw() -> Sending | None:
        async with drawing:  # in a thread: making a bomb must not hold up the good client
            return await asyncio.to_thread(next, what, None)

    async def one_connection() -> None:
        nonlocal told
        async with Talker(*address) as talker:
            while sending := await draw():
                await _one(talker, sending, report)
                if time.monotonic() - told > 5:
                    told = time.monotonic()
                    tell(report)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CONNECTIONS):
            tasks.create_task(one_connection())
    return report


async def _one(talker: Talker, sending: Sending, report: Report) -> None:
    try:
        outcome = await talker.send(sending)
    except OSError as error:
        report.faults.append(Fault("service", f"cannot connect: {error}", sending.name, b""))
        await asyncio.sleep(0.1)
        return
    report.sent += 1
    for answer in outcome.answers:
        report.answers[f"{who_answered(answer, report.server)} {answer.status}"] += 1
    if not outcome.answers:
        report.answers["closed" if outcome.closed else "silent"] += 1
    if outcome.seconds > report.slowest_seconds and sending.ordinary:
        report.slowest_seconds, report.slowest = outcome.seconds, sending.name
    report.faults += faults(sending, outcome, report.server)
    del report.faults[_MOST_FAULTS:]
