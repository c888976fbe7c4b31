"""`python -m fuzzing`: hostile bodies through the decoders, hostile requests at running servers."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from fuzzing import running
from fuzzing.campaign import Report, attack, sendings
from fuzzing.judging import log_faults
from fuzzing.neighbour import Watch, neighbour
from fuzzing.servers import running_stack

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

_KEEP = Path("var/fuzzing")  # what brought a finding about


@app.callback()
def main() -> None:
    """Hostile input for medianserve's decoders and servers."""


@app.command()
def bodies(
    count: Annotated[int, typer.Option(help="bodies, the corpus included", min=1)] = 20_000,
    seed: Annotated[int, typer.Option(help="decides all bodies")] = 1,
    processes: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Give hostile bodies to the decoders; exit 1 when one does what it must not."""
    tally, started, told = running.Tally(), time.monotonic(), 0.0
    for part in running.run(count, seed, processes, time.time()):
        tally.add(part)
        seconds = time.monotonic() - started
        if seconds - told > 5 or tally.total >= count:
            told = seconds
            print(f"{tally.total:>10,} bodies  {tally.total / seconds:>8,.0f}/s", flush=True)
    for target, number in sorted(tally.bodies.items()):
        print(f"{target:>10} {number:>10,}")
    print(
        f"{tally.bytes / 1e6:,.0f} MB in {time.monotonic() - started:.0f} s; "
        f"the slowest took {tally.slowest[0]:.2f} s of CPU time ({tally.slowest[1]}); "
        f"memory grew by at most {tally.grown_bytes() / 2**20:.0f} MiB; "
        f"{len(tally.findings)} findings"
    )
    for number, finding in enumerate(tally.findings):
        kept = _keep(f"{finding.target}-{number}", finding.body)
        print(f"\n{finding.target}, {finding.name} ({kept})\n{finding.what}")
    if tally.findings:
        sys.exit(1)


@app.command()
def servers(
    count: Annotated[int, typer.Option(help="requests to each of the two", min=1)] = 8_000,
    seed: Annotated[int, typer.Option(help="decides all requests")] = 1,
) -> None:
    """Send hostile requests to a stack of its own; exit 1 when one does harm.

    What the front end of TorchServe does wrong by itself is told, and does not count.
    """
    clean = asyncio.run(_servers(count, seed))
    sys.exit(0 if clean else 1)


async def _servers(count: int, seed: int) -> bool:
    """Return whether nothing was found."""
    clean = True
    # Short windows: what is sent leaves again, so memory can be flat.
    with running_stack(STATE_WINDOW_SECONDS="60", STATE_HISTORY_SECONDS="1") as stack:

        def tell(report: Report) -> None:
            sizes = _sizes(stack.resident_mib())
            print(f"{report.sent:>8,} requests, resident MiB: {sizes}", flush=True)

        scorer, state = (f"http://{host}:{port}" for host, port in (stack.scorer, stack.state))
        for name, address in (("state", stack.state), ("scorer", stack.scorer)):
            pids, before = stack.pids(), stack.resident_mib()

            print(f"{name}: resident MiB {_sizes(before)}")
            started = time.monotonic()
            async with neighbour(scorer if name == "scorer" else None, state) as watch:
                what = sendings(name, count, seed, time.time())
                report = await attack(name, address, what, tell)
            clean &= _tell(report, watch, time.monotonic() - started)
            print(f"resident MiB afterwards: {_sizes(stack.resident_mib())}")
            if stack.pids() != pids:
                print("A PROCESS DIED")
                clean = False
        for log in stack.logs:
            clean &= _tell_log(log)
    return clean


def _sizes(resident: dict[str, float]) -> str:
    return ", ".join(f"{role} {size:,.0f}" for role, size in sorted(resident.items()))


def _tell(report: Report, watch: Watch, seconds: float) -> bool:
    """Print what a server did; return whether it did no harm."""
    print(f"{report.server}: {report.sent:,} requests in {seconds:.0f} s")
    for who, number in sorted(report.answers.items()):
        print(f"{who:>20} {number:>8,}")
    print(
        f"slowest {report.slowest_seconds:.1f} s ({report.slowest}); a good client beside them: "
        f"{watch.rounds:,} rounds, slowest {watch.slowest_seconds:.1f} s, {len(watch.faults)} wrong"
    )
    for text in watch.faults[:10]:
        print(f"the good client: {text}")
    for number, fault in enumerate(report.faults):
        kept = _keep(f"{report.server}-{number}", fault.sent)
        whose = "FAULT" if fault.ours else "not ours"
        print(f"{whose}, {fault.by}: {fault.name}: {fault.what} ({kept})")
    return not watch.faults and not any(fault.ours for fault in report.faults)


def _tell_log(log: Path) -> bool:
    with log.open(encoding="utf-8", errors="replace", newline="\n") as lines:
        found = list(log_faults(lines, json_lines=log.name.startswith("state")))
    print(f"{log.name}: {log.stat().st_size:,} bytes, {len(found)} odd lines")
    for text in found[:10]:
        print(f"  {text}")
    return not found


def _keep(name: str, body: bytes) -> Path:
    _KEEP.mkdir(parents=True, exist_ok=True)
    kept = _KEEP / name
    kept.write_bytes(body)
    return kept


if __name__ == "__main__":
    app()
