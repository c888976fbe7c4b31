"""What was measured as tables: for the terminal, and in Markdown. Pure."""

from collections.abc import Sequence

from rich.table import Table

from benchmarks.cases import MANY_USERS, OPEN_LOOP, Measurement
from benchmarks.headlines import Headline

HEADINGS = (
    "service", "workers", "case", "requests/s", "events/s", "p50 ms", "p99 ms",
    "CPU s/M events", "cores busy", "peak MiB", "notes",
)  # fmt: skip
_TEXT_COLUMNS = {"service", "case", "notes"}


def row(found: Measurement) -> list[str]:
    """Return one measurement's cells, in the order of `HEADINGS`."""
    case = f"{found.events_per_request:,} {found.case.partition('-')[0]}"
    if found.kind == OPEN_LOOP:
        case += ", fixed rate"
    elif found.kind == MANY_USERS:
        case += f", {found.users:,} users"
    who = [found.contender, str(found.workers), case]
    if found.refused is not None:
        return [*who, *[""] * (len(HEADINGS) - 4), f"not measured: {found.refused}"]
    return [
        *who,
        number(found.requests_per_second),
        number(found.events_per_second),
        number(found.p50_ms),
        number(found.p99_ms),
        _by_role(found.cpu_per_million),
        number(sum(found.busy_cores.values())),
        number(found.peak_mib),
        _notes(found),
    ]


def number(value: float) -> str:
    """Write a number with about three digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _by_role(cpu: dict[str, float]) -> str:
    total = number(sum(cpu.values()))
    parts = [f"{role} {number(spent)}" for role, spent in cpu.items() if spent]
    return f"{total} ({', '.join(parts)})" if len(parts) > 1 else total


def _notes(found: Measurement) -> str:
    notes = [f"{count:,} {what} errors" for what, count in found.errors.items()]
    if found.never_sent:
        notes.append(f"{found.never_sent:,} requests never sent")
    if found.wrong is not None:
        notes.append(f"WRONG: {found.wrong}")
    elif found.accepted is not None:
        notes.append("counts agree")
    return "; ".join(notes)


def terminal_table(title: str, measurements: Sequence[Measurement]) -> Table:
    """Return the table as the terminal shows it."""
    table = Table(title=title)
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in _TEXT_COLUMNS else "right")
    for found in measurements:
        table.add_row(*row(found))
    return table


def said(headline: Headline) -> str:
    """Return a headline as one line."""
    if headline.value is None:
        return f"{headline.text}: not measured"
    unit = headline.unit if headline.unit == "x" else f" {headline.unit}"
    return f"{headline.text}: {number(headline.value)}{unit}"


def markdown(
    machine: dict[str, object], headlines: Sequence[Headline], measurements: Sequence[Measurement]
) -> str:
    """Return the whole report in Markdown."""
    lines = ["# The service beside its peers", ""]
    lines += [", ".join(f"{name} {value}" for name, value in machine.items()), ""]
    lines += [f"- {said(headline)}" for headline in headlines]
    for kind in dict.fromkeys(found.kind for found in measurements):
        lines += ["", f"## {kind.capitalize()}", "", _cells(HEADINGS)]
        lines.append(
            _cells(["---" if heading in _TEXT_COLUMNS else "---:" for heading in HEADINGS])
        )
        lines += [_cells(row(found)) for found in measurements if found.kind == kind]
    return "\n".join(lines) + "\n"


def _cells(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
