"""The command line: options, their checks, the exit code."""

import asyncio
import math
import secrets
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from generator.errors import UnreachableError
from generator.options import RunOptions
from generator.reporting import exit_code, summary, to_json
from generator.running import run as run_load
from generator.workload import WorkloadOptions

_BATCH_MOST = 50_000
_USERS_MOST = 10_000_000
_PREFIX_LONGEST_BYTES = 200  # leaves room for "-<index>" within the 256 bytes a user id may have

_SERVICES, _SENDING = "Services", "Sending"  # the panels of --help
_WORKLOAD, _RESULT = "Workload", "Result"

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


class Popularity(StrEnum):
    """How often each user is drawn."""

    ZIPF = "zipf"
    UNIFORM = "uniform"


class BodyFormat(StrEnum):
    """How request bodies are encoded."""

    JSON = "json"
    NDJSON = "ndjson"
    ARROW = "arrow"


@app.callback()
def main() -> None:
    """Load generator for medianserve."""


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise typer.BadParameter(f"{value!r} is not an http:// or https:// address")
    return value.rstrip("/")


def _positive(value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise typer.BadParameter(f"{value:g} is not a positive number")
    return value


def _not_negative(value: float) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise typer.BadParameter(f"{value:g} is not zero or a positive number")
    return value


def _prefix(value: str | None) -> str:
    prefix = secrets.token_hex(3) if value is None else value
    if not prefix.isprintable() or not 0 < len(prefix.encode()) <= _PREFIX_LONGEST_BYTES:
        raise typer.BadParameter(f"must be printable, 1 to {_PREFIX_LONGEST_BYTES} bytes")
    return prefix


def _new_file(value: Path | None) -> Path | None:
    # An hour's run must not end at a misspelt folder.
    if value is not None and not value.absolute().parent.is_dir():
        raise typer.BadParameter(f"the folder {value.absolute().parent} does not exist")
    return value


def _token(given: str | None, file: Path | None, flag: str) -> str | None:
    if given is not None and file is not None:
        raise typer.BadParameter(f"give it or {flag}-file, not both", param_hint=flag)
    if file is not None:
        flag = f"{flag}-file"
        try:
            given = file.read_bytes().decode("latin-1").removesuffix("\n")
        except OSError as error:
            raise typer.BadParameter(f"{file}: {error.strerror}", param_hint=flag) from None
    if given is not None and not (given and given.isascii() and given.isprintable()):
        raise typer.BadParameter("must be of ASCII characters, and not empty", param_hint=flag)
    return given


@app.command()
def run(  # noqa: PLR0913  # typer makes each option from a parameter
    *,
    url: Annotated[
        str,
        typer.Option(
            "--url",  # Typer would write it as its metavar
            metavar="URL",
            callback=_http_url,
            envvar="GENERATOR_URL",
            rich_help_panel=_SERVICES,
            help="TorchServe's inference address.",
        ),
    ] = "http://127.0.0.1:8080",
    state_url: Annotated[
        str,
        typer.Option(
            metavar="URL",
            callback=_http_url,
            envvar="GENERATOR_STATE_URL",
            rich_help_panel=_SERVICES,
            help="The state service; asked by --verify alone.",
        ),
    ] = "http://127.0.0.1:8090",
    rate: Annotated[
        float,
        typer.Option(
            metavar="EVENTS",
            callback=_positive,
            rich_help_panel=_SENDING,
            help="Target, in events a second.",
        ),
    ] = 5000,
    duration: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            callback=_positive,
            rich_help_panel=_SENDING,
            help="How long requests fall due, in seconds.",
        ),
    ] = 60,
    users: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, max=_USERS_MOST, rich_help_panel=_WORKLOAD, help="Distinct users."
        ),
    ] = 10_000,
    batch: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, max=_BATCH_MOST, rich_help_panel=_WORKLOAD, help="Events a request."
        ),
    ] = 10,
    form: Annotated[
        BodyFormat,
        typer.Option(
            "--format",
            rich_help_panel=_WORKLOAD,
            help="What request bodies are; arrow needs pyarrow.",
        ),
    ] = BodyFormat.JSON,
    seed: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            rich_help_panel=_WORKLOAD,
            help="The same seed draws the same users and features.",
        ),
    ] = 0,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            rich_help_panel=_RESULT,
            help="Afterwards recompute every user's median and compare; exit 1 if wrong.",
        ),
    ] = False,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="FILE",
            dir_okay=False,
            writable=True,
            callback=_new_file,
            rich_help_panel=_RESULT,
            help="Write the result there as JSON.",
        ),
    ] = None,
    max_in_flight: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            max=10_000,
            rich_help_panel=_SENDING,
            help="Requests under way at once. Further ones wait, and their latency counts on.",
        ),
    ] = 256,
    retries: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            max=100,
            rich_help_panel=_SENDING,
            help="Further attempts, under the same idempotency key, after a 5xx, a dropped "
            "connection or a timeout.",
        ),
    ] = 3,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            callback=_positive,
            rich_help_panel=_SENDING,
            help="Seconds one attempt may take.",
        ),
    ] = 10,
    drain: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            callback=_not_negative,
            rich_help_panel=_SENDING,
            help="Seconds after --duration in which overdue requests are still sent; what is left "
            "then is reported as never sent.",
        ),
    ] = 30,
    disorder: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            callback=_not_negative,
            rich_help_panel=_WORKLOAD,
            help="Shift each timestamp back by a random time up to this many seconds.",
        ),
    ] = 0,
    popularity: Annotated[
        Popularity, typer.Option(rich_help_panel=_WORKLOAD, help="How often each user is drawn.")
    ] = Popularity.ZIPF,
    zipf_exponent: Annotated[
        float,
        typer.Option(
            metavar="S",
            callback=_not_negative,
            rich_help_panel=_WORKLOAD,
            help="Skew of zipf: 0 is uniform, 1 is like the web.",
        ),
    ] = 1,
    user_prefix: Annotated[
        str | None,
        typer.Option(
            metavar="PREFIX",
            callback=_prefix,
            show_default="six random hex digits",
            rich_help_panel=_WORKLOAD,
            help="User ids are PREFIX-0, PREFIX-1, ... With --verify a prefix may not be used "
            "again while its events are in the window: the earlier run's would count too.",
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",  # Typer would write it as its metavar
            metavar="TOKEN",
            envvar="GENERATOR_TOKEN",
            rich_help_panel=_SERVICES,
            help="TorchServe's inference key, when it asks for one.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="GENERATOR_TOKEN_FILE",
            rich_help_panel=_SERVICES,
            help="File that holds it: ps does not see that.",
        ),
    ] = None,
    state_token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            envvar="GENERATOR_STATE_TOKEN",
            rich_help_panel=_SERVICES,
            help="The state service's read token, when it asks for one.",
        ),
    ] = None,
    state_token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="GENERATOR_STATE_TOKEN_FILE",
            rich_help_panel=_SERVICES,
            help="File that holds it.",
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", rich_help_panel=_RESULT, help="No progress on stderr.")
    ] = False,
) -> None:
    """Send a seeded workload at a fixed rate, open loop, and report rate, latency and errors.

    Open loop: a request leaves when it is due, whether or not earlier ones have answered, and its
    latency counts from the due time, so a server that stalls can't look fast.

    Exit codes: 0 all well, 1 a failed request or a wrong median, 2 a bad option or a service that
    can't be reached, 130 interrupted (what is in flight is awaited, the summary still comes).
    """
    if form is BodyFormat.ARROW and find_spec("pyarrow") is None:
        raise typer.BadParameter("arrow needs pyarrow: pip install pyarrow", param_hint="--format")
    options = RunOptions(
        url=url,
        state_url=state_url,
        rate=rate,
        duration_seconds=duration,
        workload=WorkloadOptions(
            seed=seed,
            users=users,
            batch=batch,
            user_prefix=user_prefix or "",
            popularity=popularity.value,
            zipf_exponent=zipf_exponent,
            disorder_seconds=disorder,
            format=form.value,
        ),
        verify=verify,
        json_file=json_file,
        max_in_flight=max_in_flight,
        retries=retries,
        timeout_seconds=timeout,
        drain_seconds=drain,
        token=_token(token, token_file, "--token"),
        state_token=_token(state_token, state_token_file, "--state-token"),
        quiet=quiet,
    )
    try:
        result = asyncio.run(run_load(options))
    except UnreachableError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:  # before the sending: nothing to report
        raise typer.Exit(130) from None
    typer.echo(summary(result))
    if options.json_file is not None:
        try:
            options.json_file.write_bytes(to_json(result))
        except OSError as error:
            typer.echo(f"--json: {error}", err=True)
            raise typer.Exit(1) from None
    raise typer.Exit(exit_code(result))
