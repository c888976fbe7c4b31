"""A great many bodies through the decoders, in several processes. A seed says which bodies."""

import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from random import Random

import psutil

from fuzzing import corpus
from fuzzing.decoding import Finding, Hostile, look_at, look_at_batch
from fuzzing.grammar import Grammar
from fuzzing.mutation import spoil
from fuzzing.packing import packed
from fuzzing.targets import Target
from handler.events import MAX_INTEGER_DIGITS

_ODDITIES = (0.0, 0.02, 0.1, 0.3)
_CHUNK = 2000  # bodies of a job
_MOST_FINDINGS = 20
_LARGE_BYTES = 1 << 20  # not to be read together with others
_HEADERS = (
    ("Idempotency-Key", "k"), ("Idempotency-Key", ""), ("Idempotency-Key", "k" * 129),
    ("Idempotency-Key", "\u202ek"), ("X-Dry-Run", "1"), ("X-Dry-Run", "maybe\n"),
    ("Content-Encoding", "gzip"), ("Content-Encoding", "identity"),
    ("Content-Encoding", "\udcff\x00"),
    ("Content-Type", ""), ("Content-Type", "application/octet-stream"),
    ("Content-Type", "text/csv"), ("Content-Type", "text/x-ndjson"),
    ("Content-Type", "multipart/form-data; boundary=x"),
    ("X-Request-ID", "\udcff" * 300), ("traceparent", "\r\nX: y"),
)  # fmt: skip


@dataclass
class Tally:
    """What has been tried, and what was found."""

    bodies: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    bytes: int = 0
    slowest: tuple[float, str] = (0.0, "")  # CPU seconds of one body or batch, and its name
    resident: dict[int, list[int]] = field(default_factory=dict)  # bytes, by process, in time

    @property
    def total(self) -> int:
        """How many bodies."""
        return self.bodies.total()

    def add(self, other: "Tally") -> None:
        """Take another one's counts, which are later ones."""
        self.bodies += other.bodies
        self.findings = [*self.findings, *other.findings][:_MOST_FINDINGS]
        self.bytes += other.bytes
        self.slowest = max(self.slowest, other.slowest)
        for process, sizes in other.resident.items():
            self.resident.setdefault(process, []).extend(sizes)

    def grown_bytes(self) -> int:
        """Return by how much the process grew that grew most, from its first look to its last."""
        return max((sizes[-1] - sizes[0] for sizes in self.resident.values()), default=0)


def drawn(seed: str, now: float) -> Iterator[Hostile]:
    """Yield bodies without end: by grammar, four fifths of them spoilt. The seed decides all."""
    random = Random(seed)  # noqa: S311 - no secret
    grammars = [Grammar(random, oddity, now) for oddity in _ODDITIES]
    targets = tuple(Target)
    while True:
        target = random.choice(targets)
        body = random.choice(grammars).body(target)
        if random.random() < 0.8 and target is not Target.QUERY:
            body = spoil(body, random)
        headers: tuple[tuple[str, str], ...] = ()
        if random.random() < 0.15:
            headers = (random.choice(_HEADERS),)
        if target.of_scorer and random.random() < 0.05:
            body, headers = packed(body, random)
        yield Hostile(f"drawn with seed {seed}", target, body, headers)


def by_hand(now: float) -> Iterator[Hostile]:
    """Yield the corpus."""
    for case in corpus.cases(now):
        yield Hostile(case.name, case.target, case.make(), case.headers)


def look_through(bodies: Iterable[Hostile], seed: str) -> Tally:
    """Give bodies to their decoders; those of the scorer in batches of one to eight."""
    random, tally = Random(seed), Tally()  # noqa: S311 - no secret
    batch: list[Hostile] = []
    size = 1
    for item in bodies:
        tally.bodies[item.target.name] += 1
        tally.bytes += len(item.body)
        batch.append(item)
        if item.target.of_scorer and len(batch) < size and len(item.body) <= _LARGE_BYTES:
            continue
        _look(batch, random, tally)
        batch, size = [], random.choice((1, 2, 4, 8))
    _look(batch, random, tally)
    del tally.findings[_MOST_FINDINGS:]
    return tally


def _look(batch: list[Hostile], random: Random, tally: Tally) -> None:
    started = time.thread_time()
    for_state = [item for item in batch if not item.target.of_scorer]
    for item in for_state:
        tally.findings += look_at(item)
    if for_scorer := [item for item in batch if item.target.of_scorer]:
        tally.findings += look_at_batch(for_scorer, random)
    if batch:
        name = f"{batch[-1].target.name} {batch[-1].name}"
        tally.slowest = max(tally.slowest, (time.thread_time() - started, name))


def run(
    bodies: int, seed: int, processes: int, now: float, *, by_hand_first: bool = True
) -> Iterator[Tally]:
    """Try the corpus, and then drawn bodies until there were `bodies`; yield what came of each job.

    Memory is looked at after the corpus: what its largest bodies took is not given back at once.
    """
    with multiprocessing.get_context("spawn").Pool(processes, _set_up) as pool:
        left = bodies
        corpus_jobs = [(now, number, processes) for number in range(processes)]
        for tally in pool.imap_unordered(_corpus_job, corpus_jobs if by_hand_first else ()):
            left -= tally.total
            yield tally
        jobs = [
            (f"{seed}/{number}", now, min(_CHUNK, left - number * _CHUNK))
            for number in range(max(0, -(-left // _CHUNK)))
        ]
        yield from pool.imap_unordered(_drawn_job, jobs)


def _set_up() -> None:
    sys.set_int_max_str_digits(MAX_INTEGER_DIGITS)  # as the worker does when it loads


def _corpus_job(job: tuple[float, int, int]) -> Tally:
    now, number, of = job
    return look_through(islice(by_hand(now), number, None, of), f"corpus {number}")


def _drawn_job(job: tuple[str, float, int]) -> Tally:
    seed, now, count = job
    tally = look_through(islice(drawn(seed, now), count), seed)
    tally.resident[os.getpid()] = [psutil.Process().memory_info().rss]
    return tally
