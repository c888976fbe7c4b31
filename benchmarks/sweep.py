"""Measure medianserve under other settings of TorchServe: `python -m benchmarks.sweep --help`."""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.cases import Case, Measurement, measure
from benchmarks.contenders import OURS, Contender, run_medianserve
from benchmarks.load import wrk
from handler.archive import build_archive
from handler.default_model import default_weights
from handler.packing import DEFAULT_CONFIG

_WARM_UP_SECONDS = 2
# One waiting client a connection: few of them, so that a batch may wait for its delay, and many.
_CASES = (
    Case("json", 1, at_once=16),
    Case("json", 1),
    Case("json", 10),
    Case("json", 100),
    Case("json", 1000),
    Case("arrow", 10_000),
)


def measure_settings(
    batch_size: int, delay_ms: int, workers: int, seconds: int
) -> list[Measurement]:
    """Run the stack with an archive that says so; return a measurement a case."""
    with tempfile.TemporaryDirectory(prefix="medianserve-sweep-") as folder:
        config = yaml.safe_load(DEFAULT_CONFIG.read_text(encoding="utf-8"))
        config |= {"batchSize": batch_size, "maxBatchDelay": delay_ms}
        changed = Path(folder, "model-config.yaml")
        changed.write_text(yaml.safe_dump(config), encoding="utf-8")
        store = Path(folder, "store")
        build_archive(store / "scorer.mar", default_weights(), changed)
        contender = Contender(OURS, run_medianserve)
        with run_medianserve(workers, TS_MODEL_STORE=str(store)) as running:
            return [
                measure(
                    contender,
                    running,
                    workers,
                    case,
                    wrk,
                    seconds=seconds,
                    warm_up_seconds=_WARM_UP_SECONDS,
                )
                for case in _CASES
            ]


def main(
    *,
    batch_size: Annotated[list[int] | None, typer.Option(help="repeatable; 8, 16, 32, 64")] = None,
    delay: Annotated[list[int] | None, typer.Option(help="ms, repeatable; 1, 2, 5")] = None,
    workers: Annotated[list[int] | None, typer.Option(help="repeatable; 1 and 2")] = None,
    seconds: Annotated[int, typer.Option(min=1, help="for each case")] = 3,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="file to write all numbers to")
    ] = None,
) -> None:
    """Measure events/s and p99 for each combination of batchSize, maxBatchDelay and workers."""
    console = Console(width=160)
    table = Table(title="events/s (p99 ms)")
    for heading in ("batchSize", "maxBatchDelay ms", "workers", *(case.name for case in _CASES)):
        table.add_column(heading, justify="right")
    report = []
    for size in batch_size or (8, 16, 32, 64):
        for wait in delay or (1, 2, 5):
            for count in workers or (1, 2):
                found = measure_settings(size, wait, count, seconds)
                cells = [_cell(item) for item in found]
                table.add_row(str(size), str(wait), str(count), *cells)
                console.print(f"batchSize {size}, maxBatchDelay {wait}, {count} worker(s): {cells}")
                report.append(
                    {
                        "batch_size": size,
                        "max_batch_delay_ms": wait,
                        "workers": count,
                        "cases": [asdict(item) for item in found],
                    }
                )
                if json_file is not None:  # at once: a later setting may break down
                    json_file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    console.print(table)


def _cell(found: Measurement) -> str:
    if problem := found.refused or found.wrong:
        return problem
    return f"{found.events_per_second:,.0f} ({found.p99_ms:.0f})"


if __name__ == "__main__":
    typer.run(main)
