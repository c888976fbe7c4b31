"""What became of the events of the last minutes, and whether somebody should look at it. Pure.

An event that is malformed, late or in the future is answered 200 and is in no median: what is
wrong with one event costs that event alone. With many of them nobody would notice but for this.
"""

from typing import Literal, NamedTuple, Self

from state_service.status import Counters

_LEAST_EVENTS = 10  # fewer are no alarm, and told only when there are no others
_BAD_SHARE, _NOTABLE_SHARE = 0.05, 0.01
_REPEATED_SHARE = 0.5  # as after an outage; for long, it is a producer that gives one key to all
_WORDS = {
    "skipped": ("malformed", "The answers' errors say what is wrong with each."),
    "late": ("older than the window", "A producer lags, or its clock does; or it is a replay."),
    "future": ("ahead of the clock", "A clock is wrong, or timestamps are not in seconds."),
    "duplicates": ("under a key that was known", "Each request needs a key of its own."),
    "forgotten": ("of before their users were forgotten", "They are not counted again."),
}
_LOST, _REPEATED = ("skipped", "late", "future"), ("duplicates", "forgotten")


class Outcomes(NamedTuple):
    """Events by what became of them."""

    accepted: int = 0
    late: int = 0
    future: int = 0
    skipped: int = 0
    duplicates: int = 0
    forgotten: int = 0

    @classmethod
    def of(cls, counters: Counters) -> Self:
        """Take down the counters."""
        return cls(*(getattr(counters, name) for name in cls._fields))

    def since(self, before: "Outcomes") -> "Outcomes":
        """Return what has been counted since an earlier moment."""
        return Outcomes(*(now - then for now, then in zip(self, before, strict=True)))


def judge(recent: Outcomes) -> tuple[Literal["bad", "warning", "good"], str] | None:
    """Say what became of the events that are in no median; None when there are none."""
    lost = recent.late + recent.future + recent.skipped
    events = recent.accepted + lost
    repeated = recent.duplicates + recent.forgotten
    few = lost < _LEAST_EVENTS
    if lost == events > 0 or (not few and lost >= _NOTABLE_SHARE * events):
        bad = not few and lost >= _BAD_SHARE * events
        level: Literal["bad", "warning"] = "bad" if bad else "warning"
        return level, f"{_of(lost, events)} are in no median: {_parts(recent, _LOST)}"
    if repeated >= _LEAST_EVENTS and repeated >= _REPEATED_SHARE * (events + repeated):
        some = _of(repeated, events + repeated)
        return "warning", f"{some} were left out: {_parts(recent, _REPEATED)}"
    if lost:
        return "good", f"All is well, but for {_of(lost, events)}: {_parts(recent, _LOST)}"
    return None


def _of(some: int, events: int) -> str:
    return f"{some:,} of {events:,} events of the last five minutes"


def _parts(recent: Outcomes, names: tuple[str, ...]) -> str:
    """Return how many of each, and what to do about the most frequent."""
    counts = {name: getattr(recent, name) for name in names}
    parts = ", ".join(f"{count:,} {_WORDS[name][0]}" for name, count in counts.items() if count)
    most = max(counts, key=counts.__getitem__)
    return f"{parts}. {_WORDS[most][1]}"
