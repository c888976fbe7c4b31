"""`python -m chaos`: break the stack under load and count what is lost, doubled or wrong."""

import asyncio
import secrets
import signal
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from chaos.reporting import show
from chaos.running import run
from chaos.scene import Options
from chaos.schedule import Kind, deal
from chaos.target import TargetError

_WINDOW_SECONDS, _SOAK_WINDOW_SECONDS = 7200.0, 300.0
_SEED_BITS = 32
_PROGRAMS = ("STATE_", "HANDLER_", "TS_")


def _settings(value: list[str] | None) -> list[str] | None:
    for item in value or []:
        if not item.startswith(_PROGRAMS) or "=" not in item:
            raise typer.BadParameter(
                f"{item} is not NAME=VALUE with a NAME of {', '.join(_PROGRAMS)}"
            )
    return value


def main(  # noqa: PLR0913 - typer makes each option from a parameter
    *,
    rounds: Annotated[int, typer.Option(min=1, help="of one fault or two")] = 6,
    seed: Annotated[
        int | None, typer.Option(min=0, help="repeats a schedule; drawn and printed if not given")
    ] = None,
    seconds_between: Annotated[
        float, typer.Option(min=0, help="between two rounds, on the average")
    ] = 1.0,
    only: Annotated[
        list[Kind] | None, typer.Option(help="a kind of fault to draw from (all); repeatable")
    ] = None,
    schedule: Annotated[
        bool, typer.Option("--schedule", help="print the rounds of a seed and break nothing")
    ] = False,
    soak: Annotated[
        float, typer.Option(min=0, help="seconds at a constant rate, without faults, instead")
    ] = 0.0,
    rate: Annotated[
        float | None, typer.Option(min=1, help="events a second (2,000; a soak's 5,000)")
    ] = None,
    events: Annotated[int, typer.Option(min=1, help="a request")] = 20,
    users: Annotated[int, typer.Option(min=1, help="whom the events are of")] = 200,
    senders: Annotated[int, typer.Option(min=1, help="requests under way at once")] = 24,
    workers: Annotated[int, typer.Option(min=1, help="TorchServe workers at the start")] = 2,
    window: Annotated[
        float | None,
        typer.Option(
            min=1, help="seconds; a run with faults must end within it (7,200; a soak's 300)"
        ),
    ] = None,
    patience: Annotated[
        float, typer.Option(min=1, help="seconds the stack may take to come back after a round")
    ] = 60.0,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            callback=_settings, help="NAME=VALUE, a variable of the stack's programs; repeatable"
        ),
    ] = None,
    tmpfs: Annotated[
        bool, typer.Option(help="mount a small disk to fill it, where that is allowed")
    ] = True,
    keep: Annotated[
        Path | None, typer.Option(help="new folder for the stack's files, which are then kept")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="file to write all numbers to")
    ] = None,
) -> None:
    """Load the real stack from a client that retries with keys, and break the stack meanwhile.

    Workers, TorchServe, the state service or all of it are killed or stopped, the connection
    between the two is cut, delayed, throttled and reset, the disk fills, workers and versions come
    and go. In the end every event that was acknowledged must be there once, and every user's
    answers must be right: exit status 1 if not, or if the stack does not come back in time.
    """
    console = Console(highlight=False)
    tell = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    seed = secrets.randbits(_SEED_BITS) if seed is None else seed
    kinds = tuple(only or Kind)
    if schedule:
        for number, each in enumerate(deal(seed, rounds, kinds, seconds_between), 1):
            tell(f"{number:>4}  after {each.pause_seconds:.1f} s: {each}")
        return
    tell(f"seed {seed}")
    options = Options(
        seed=seed,
        rounds=rounds,
        seconds_between=seconds_between,
        kinds=kinds,
        soak_seconds=soak,
        events_per_second=rate or (5_000.0 if soak else 2_000.0),
        events_per_request=events,
        users=users,
        senders=senders,
        workers=workers,
        window_seconds=window or (_SOAK_WINDOW_SECONDS if soak else _WINDOW_SECONDS),
        return_seconds=patience,
        settings=dict(item.split("=", 1) for item in setting or []),
        tmpfs=tmpfs,
        keep=keep,
    )
    try:
        report = asyncio.run(run(options, tell))
    except asyncio.CancelledError:
        raise typer.Exit(130) from None
    except TargetError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    show(report, console)
    if json_file is not None:
        report.write(json_file)
    if not report.right:
        raise typer.Exit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the stack is ended
    typer.run(main)
