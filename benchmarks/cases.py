"""What is measured, and one case of it: load, use of the machine, and whether all was counted."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import urllib3

from benchmarks.bodies import Bodies, Encoding, make_bodies
from benchmarks.contenders import Contender, Running
from benchmarks.load import Driver, Load
from benchmarks.usage import Usage, per_million

CLOSED_LOOP, OPEN_LOOP, MANY_USERS = "closed loop", "open loop", "number of users"
USERS = 10_000
_SETTLE_SECONDS = 30.0  # for what was under way when the load ended
_SETTLED_AFTER_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Case:
    """Requests of `events` each, as often as they are answered."""

    encoding: Encoding
    events: int
    users: int = USERS
    uniform: bool = False
    at_once: int | None = None  # requests under way

    @property
    def name(self) -> str:
        """What the reader sees and `--case` names."""
        crowd = f"-by-{self.at_once}" if self.at_once else ""
        return f"{self.encoding}-{self.events}{crowd}"

    @property
    def connections(self) -> int:
        """How many requests are under way: unless given, so many that no worker waits for one."""
        return self.at_once or (64 if self.events <= 100 else 16 if self.events <= 1000 else 8)

    def bodies(self) -> Bodies:
        """Make the requests, all different; enough that each user is in one of them."""
        count = 16 if self.events >= 10_000 else 64
        if self.uniform:
            count = max(count, -(-self.users // self.events))
        return make_bodies(self.encoding, self.events, count, self.users, uniform=self.uniform)


JSON_CASES = tuple(Case("json", events) for events in (1, 10, 100, 1000, 10_000))
OTHER_CASES = tuple(
    Case(encoding, events) for encoding in ("ndjson", "arrow") for events in (100, 1000, 10_000)
)
OPEN_CASE = Case("json", 10)
USER_CASES = tuple(
    Case("json", 1000, users, uniform=True) for users in (10, 1000, 100_000, 1_000_000)
)


@dataclass(slots=True)
class Measurement:
    """What came out. Of a case that was not measured only `refused` says why.

    CPU in seconds per million events, by role; `busy_cores` is CPU seconds a second, by role.
    `accepted` are the events counted by the contender, `acknowledged` those of answered requests;
    `wrong` says how they disagree. `failed`: the contender or its load broke down.
    """

    contender: str
    workers: int
    kind: str
    case: str
    users: int
    events_per_request: int
    refused: str | None = None
    requests_per_second: float = 0.0
    events_per_second: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    cpu_per_million: dict[str, float] = field(default_factory=dict)
    busy_cores: dict[str, float] = field(default_factory=dict)
    peak_mib: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)
    never_sent: int = 0
    acknowledged: int = 0
    accepted: int | None = None
    wrong: str | None = None
    failed: bool = False

    @property
    def measured(self) -> bool:
        """Whether its numbers may be compared."""
        return self.refused is None and self.wrong is None and self.requests_per_second > 0


def cases_for(contender: Contender, cases: tuple[Case, ...]) -> Iterator[tuple[Case, str | None]]:
    """Give the cases a contender is asked, and why one of them is not measured."""
    for case in cases:
        if contender.json_only and case.encoding != "json":
            continue
        yield case, contender.why_no_more if case.events > contender.most_events else None


def measure(  # noqa: PLR0913 - one case, wholly given
    contender: Contender,
    running: Running,
    workers: int,
    case: Case,
    drive: Driver,
    *,
    seconds: int,
    warm_up_seconds: int,
    kind: str = CLOSED_LOOP,
) -> Measurement:
    """Measure one case against a contender that runs."""
    bodies = case.bodies()
    result = Measurement(contender.name, workers, kind, case.name, case.users, case.events)
    result.refused = refusal(running, bodies)
    if result.refused is not None:
        return result
    if warm_up_seconds:
        drive(running.ingest_url, bodies, case.connections, warm_up_seconds)
    before = settled(running.accepted)
    with Usage(running.pid) as usage:
        load = drive(running.ingest_url, bodies, case.connections, seconds)
    _fill(result, load, usage)
    if before is not None:
        after = settled(running.accepted)
        assert after is not None
        result.accepted = after - before
        result.wrong = miscount(result, case.connections)
        if result.wrong is None and running.median(bodies.some_user) is None:
            result.wrong = f"{bodies.some_user} has no median"
    return result


def _fill(result: Measurement, load: Load, usage: Usage) -> None:
    result.requests_per_second = load.answered / load.seconds
    result.events_per_second = result.requests_per_second * result.events_per_request
    result.p50_ms, result.p99_ms = load.p50_ms, load.p99_ms
    result.acknowledged = load.answered * result.events_per_request
    result.cpu_per_million = per_million(usage.cpu_seconds, result.acknowledged)
    result.busy_cores = {role: spent / load.seconds for role, spent in usage.cpu_seconds.items()}
    result.peak_mib = usage.peak_mib
    result.errors, result.never_sent = load.errors, load.never_sent


def refusal(running: Running, bodies: Bodies) -> str | None:
    """Say why the first body is refused; None when it is answered."""
    answer = urllib3.request(
        "POST", running.ingest_url, body=bodies.encoded[0], headers=bodies.headers, timeout=30.0
    )
    if answer.status < 400:
        return None
    return f"{answer.status} {answer.data[:200].decode(errors='replace')}"


def settled(count: Callable[[], int | None]) -> int | None:
    """Return the count once it has stopped growing; None when there is none."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    last = count()
    while last is not None and time.monotonic() < deadline:
        time.sleep(_SETTLED_AFTER_SECONDS)
        now = count()
        if now == last:
            break
        last = now
    return last


def miscount(result: Measurement, connections: int) -> str | None:
    """Compare events acknowledged with events counted; None when they agree.

    The load ends with a request under way on each connection: those, and requests that failed,
    may have been counted or not.
    """
    assert result.accepted is not None
    unknown = connections + sum(result.errors.values())
    most = result.acknowledged + unknown * result.events_per_request
    if result.acknowledged <= result.accepted <= most:
        return None
    return f"{result.accepted:,} events counted, {result.acknowledged:,} acknowledged"
