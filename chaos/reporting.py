"""What a run has found, for people and for programs."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from chaos.client import Tally
from chaos.memory import Course
from chaos.oracle import Verdict


@dataclass(slots=True)
class Injected:
    """How often a kind of fault came, and the longest outage of a round that had it alone."""

    times: int = 0
    longest_outage_seconds: float = 0.0


@dataclass(slots=True)
class Report:
    """One run. `errors` has what went wrong besides what the verdict counts, a sentence each."""

    seed: int
    rounds: int = 0
    seconds: float = 0.0
    faults: dict[str, Injected] = field(default_factory=dict)
    not_injected: list[str] = field(default_factory=list)
    stack_starts: int = 0
    slowest_return_seconds: float = 0.0
    load: Tally = field(default_factory=Tally)
    events_per_request: int = 0
    verdict: Verdict | None = None
    memory: list[Course] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def right(self) -> bool:
        """Whether all that was promised has been kept."""
        return (
            self.verdict is not None
            and self.verdict.right
            and not self.load.wrong_answers
            and not self.errors
        )

    def write(self, path: Path) -> None:
        """Write all numbers as a JSON document."""
        document = msgspec.to_builtins(self) | {"right": self.right}
        path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


def show(report: Report, console: Console) -> None:
    """Print the tables."""
    if report.faults:
        console.print(_faults_table(report.faults))
    console.print(_two_columns("load", _load_rows(report)))
    if report.verdict is not None:
        console.print(_two_columns("verdict", _verdict_rows(report.verdict)))
    if report.memory:
        console.print(_memory_table(report.memory))
    examples = report.verdict.examples if report.verdict else []
    complaints = [*report.errors, *report.load.examples, *examples]
    for sentence in complaints:
        console.print(f"error: {sentence}", style="red", markup=False, highlight=False)
    for sentence in report.not_injected:
        console.print(f"not injected: {sentence}", markup=False, highlight=False)
    console.print("nothing lost, nothing doubled, nothing wrong" if report.right else "NOT RIGHT")


def _load_rows(report: Report) -> list[tuple[str, object]]:
    load = report.load
    failed = ", ".join(f"{count:,} x {what}" for what, count in load.attempts_failed.most_common())
    return [
        ("rounds", report.rounds),
        ("faults", sum(kind.times for kind in report.faults.values())),
        ("seconds", f"{report.seconds:.0f}"),
        ("requests", load.requests),
        ("acknowledged", load.acknowledged),
        *((f"  {word}", count) for word, count in load.recorded.items()),
        ("events acknowledged", load.acknowledged * report.events_per_request),
        ("retries", load.retries),
        ("  after", failed or "-"),
        ("longest outage", f"{load.longest_outage_seconds:.1f} s"),
        ("slowest return after a round", f"{report.slowest_return_seconds:.1f} s"),
        ("starts of the stack", report.stack_starts),
        ("wrong answers to requests", load.wrong_answers),
    ]


def _verdict_rows(verdict: Verdict) -> list[tuple[str, object]]:
    return [
        ("events compared", verdict.events),
        ("users compared", verdict.users),
        ("lost", verdict.lost),
        ("doubled", verdict.doubled),
        ("wrong scores", verdict.wrong),
        ("never sent", verdict.foreign),
        ("requests counted in part", verdict.torn),
        ("users answered wrongly", verdict.users_wrong),
        ("requests never acknowledged", verdict.unacknowledged_requests),
        ("  counted all the same", verdict.of_them_counted),
    ]


def _faults_table(faults: dict[str, Injected]) -> Table:
    table = Table(title="faults injected", title_justify="left")
    table.add_column("kind")
    table.add_column("times", justify="right")
    table.add_column("longest outage by it alone, s", justify="right")
    for kind, found in sorted(faults.items()):
        table.add_row(kind, str(found.times), f"{found.longest_outage_seconds:.1f}")
    return table


def _two_columns(title: str, rows: list[tuple[str, object]]) -> Table:
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column()
    table.add_column(justify="right")
    for name, value in rows:
        table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    return table


def _memory_table(courses: list[Course]) -> Table:
    table = Table(title="resident memory, MiB", title_justify="left")
    for name in ("process", "first", "1/4", "1/2", "3/4", "last", "most"):
        table.add_column(name, justify="left" if name == "process" else "right")
    for course in courses:
        process, *sizes = asdict(course).values()
        table.add_row(process, *(f"{mib:,.1f}" for mib in sizes))
    return table
