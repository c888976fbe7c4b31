"""The few numbers that matter, from all that was measured. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.cases import CLOSED_LOOP, MANY_USERS, OPEN_LOOP, Measurement
from benchmarks.contenders import ECHO, OURS, REFERENCE, REWRITE

# What medianserve itself adds to TorchServe's front end.
_OWN_ROLES = ("workers", "state service")


@dataclass(frozen=True, slots=True)
class Headline:
    """One number in words; None when what it needs was not measured."""

    text: str
    value: float | None
    unit: str


def headlines(measurements: Sequence[Measurement]) -> list[Headline]:
    """Say what was promised to be compared, for each number of workers."""
    found = [found for found in measurements if found.measured]
    said: list[Headline] = []
    for workers in sorted({item.workers for item in found if item.contender == OURS}):
        said += _of_workers(found, workers)
    same = [item for item in found if item.kind == MANY_USERS]
    if len(same) > 1:
        counts = f"{min(same, key=_users).users:,} to {max(same, key=_users).users:,} users"
        rates = [item.events_per_second for item in same]
        costs = [own_cpu(item.cpu_per_million) for item in same]
        said += [
            Headline(f"events/s, fastest over slowest, {counts}", max(rates) / min(rates), "x"),
            Headline(
                f"CPU an event of workers and state service, dearest over cheapest, {counts}",
                _over(max(costs), min(costs)),
                "x",
            ),
        ]
    return said


def _of_workers(found: Sequence[Measurement], workers: int) -> Iterable[Headline]:
    def pick(contender: str, case: str, kind: str = CLOSED_LOOP) -> Measurement | None:
        fitting = (
            item
            for item in found
            if (item.contender, item.case, item.kind) == (contender, case, kind)
            and item.workers == (workers if contender in {OURS, ECHO} else 1)
        )
        return next(fitting, None)

    suffix = f"{workers} worker{'s' * (workers > 1)}"
    for events in (1, 10, 100):
        case, what = f"json-{events}", f"{events} event{'s' * (events > 1)}"
        yield Headline(
            f"requests/s of medianserve over echo, {what} a request, {suffix}",
            _over(_rate(pick(OURS, case)), _rate(pick(ECHO, case))),
            "x",
        )
    for peer in (REFERENCE, REWRITE):
        yield Headline(
            f"events/s of medianserve over the {peer}, 100 events a request, {suffix}",
            _over(_rate(pick(OURS, "json-100")), _rate(pick(peer, "json-100"))),
            "x",
        )
    for case, words in (("json-1000", "1,000 events of JSON"), ("arrow-10000", "10,000 of Arrow")):
        measured = pick(OURS, case)
        yield Headline(
            f"events/s of medianserve, {words} a request, {suffix}",
            measured.events_per_second if measured else None,
            "events/s",
        )
    ours, echo = (pick(name, "json-10", OPEN_LOOP) for name in (OURS, ECHO))
    yield Headline(
        f"p99 of medianserve over echo at a fixed rate, {suffix}",
        _over(ours.p99_ms if ours else None, echo.p99_ms if echo else None),
        "x",
    )
    yield Headline(
        f"CPU of workers and state service at that rate, {suffix}",
        100 * own_cpu(ours.busy_cores) if ours else None,
        "% of one core",
    )


def own_cpu(by_role: dict[str, float]) -> float:
    """Add up what workers and state service use, or the server of a peer."""
    return sum(by_role.get(role, 0.0) for role in (*_OWN_ROLES, "server"))


def _users(item: Measurement) -> int:
    return item.users


def _rate(item: Measurement | None) -> float | None:
    return item.requests_per_second if item else None


def _over(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None
