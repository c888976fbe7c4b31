"""The one table of settings: `--help`, the documentation and validation all come from it.

Each can be given as `--window-seconds 60` or as `STATE_WINDOW_SECONDS=60`; the flag wins. An
unknown `STATE_*` variable is refused at start: a typo in a limit must not go unnoticed; but for
those with which Kubernetes names Services (`environment`).
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from state_service.environment import given as given_variables

ENVIRONMENT_PREFIX = "STATE_"

_WEEK = 7 * 86_400.0
_YEAR = 366 * 86_400.0


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The state service's settings."""

    host: Annotated[
        str, Meta(description="address to listen on; beyond loopback it needs a write token")
    ] = "127.0.0.1"
    port: Annotated[
        int, Meta(ge=0, le=65_535, description="port to listen on; 0 takes a free one")
    ] = 8090
    read_token: Annotated[
        str | None, Meta(description="token that may ask; better as a file, which ps does not see")
    ] = None
    read_token_file: Annotated[str | None, Meta(description="file that holds the read token")] = (
        None
    )
    write_token: Annotated[
        str | None, Meta(description="token that may also record; better as a file")
    ] = None
    write_token_file: Annotated[str | None, Meta(description="file that holds the write token")] = (
        None
    )
    ingest_token: Annotated[
        str | None, Meta(description="token that may send to /ingest, no more; better as a file")
    ] = None
    ingest_token_file: Annotated[
        str | None, Meta(description="file that holds the ingest token")
    ] = None
    allow_anonymous: Annotated[
        bool,
        Meta(description="listen beyond loopback without tokens: the network keeps others out"),
    ] = False
    allowed_hosts: Annotated[
        str,
        Meta(
            description="names under which it may be asked without tokens, besides localhost and "
            "addresses; separated by commas; *.example.com is every name below that one, * any"
        ),
    ] = ""
    cors_allowed_origins: Annotated[
        str,
        Meta(
            description="origins whose pages may read answers, such as https://dash.example.com, "
            "separated by commas; * is any; they may send and change only with tokens; empty: none"
        ),
    ] = ""
    database: Annotated[
        str, Meta(description="SQLite file for journal and snapshots; its folder is created")
    ] = "var/state.db"
    durability: Annotated[
        Literal["journal", "full", "snapshot"],
        Meta(
            description="what an acknowledged event survives: kill -9, power loss as well, or "
            "neither until the next snapshot"
        ),
    ] = "journal"
    window_seconds: Annotated[
        float, Meta(gt=0, le=_WEEK, description="length of every user's window")
    ] = 300.0
    max_future_seconds: Annotated[
        float, Meta(ge=0, le=_WEEK, description="how far ahead of the clock a timestamp may be")
    ] = 60.0
    history_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=_WEEK,
            description="how much longer than the window scores are kept, for 'at', 'since' and "
            "the page's past; each second costs the memory of a second's events",
        ),
    ] = 300.0
    clock: Annotated[
        Literal["wall", "event"],
        Meta(description="windows end at the server's time, or at the events' own (replays)"),
    ] = "wall"
    snapshot_interval_seconds: Annotated[
        float,
        Meta(
            gt=0, le=_WEEK, description="time between snapshots: bounds the journal and a restart"
        ),
    ] = 5.0
    forget_replays_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=_YEAR,
            description="how long after a user was forgotten replays of older events are left out",
        ),
    ] = 86_400.0
    body_timeout_seconds: Annotated[
        float,
        Meta(gt=0, le=_WEEK, description="time a client has to send a head, and then its body"),
    ] = 10.0
    max_body_bytes: Annotated[int, Meta(ge=1, description="largest request body")] = (
        32 * 1024 * 1024
    )
    max_batches: Annotated[int, Meta(ge=1, description="most batches in one POST /scores")] = 1_000
    max_user_id_bytes: Annotated[int, Meta(ge=1, description="longest user id, in UTF-8")] = 256
    max_key_bytes: Annotated[int, Meta(ge=1, description="longest batch key, in UTF-8")] = 128
    max_lookup_users: Annotated[int, Meta(ge=1, description="most users in one POST /medians")] = (
        10_000
    )
    max_quantiles: Annotated[int, Meta(ge=1, description="most quantiles in one question")] = 100
    max_listed: Annotated[int, Meta(ge=1, description="most users or scores in one list")] = 10_000
    max_viewers: Annotated[
        int, Meta(ge=0, description="streams of events served at once: pages that are open")
    ] = 64
    max_live_events: Annotated[
        int, Meta(ge=1, description="most scores held in memory, those of the history included")
    ] = 50_000_000
    max_active_users: Annotated[
        int, Meta(ge=1, description="most users with a score held, those of the history included")
    ] = 5_000_000
    max_batch_keys: Annotated[
        int, Meta(ge=1, description="most batch keys remembered against duplicates")
    ] = 5_000_000
    max_forgotten_users: Annotated[
        int, Meta(ge=1, description="most forgotten users whose replays are left out; oldest go")
    ] = 100_000
    max_requests_in_flight: Annotated[
        int, Meta(ge=1, description="requests worked on at once; more get a 503")
    ] = 256
    max_ingests_in_flight: Annotated[
        int, Meta(ge=1, description="requests to /ingest worked on at once; more get a 503")
    ] = 256
    ingest_timeout_seconds: Annotated[
        float,
        Meta(
            gt=0,
            le=_WEEK,
            description="time TorchServe has to answer what came to /ingest; above its own limits",
        ),
    ] = 60.0
    torchserve_url: Annotated[
        str,
        Meta(
            description="TorchServe's inference address, for /ingest and the live page; empty: "
            "not asked"
        ),
    ] = ""
    torchserve_public_url: Annotated[
        str,
        Meta(description="the same as clients reach it, shown in /docs; empty: as torchserve_url"),
    ] = ""
    torchserve_key_file: Annotated[
        str | None,
        Meta(
            description="TorchServe's key_file.json, read anew when it changes: /ingest shows its "
            "inference key for those who show a token"
        ),
    ] = None
    management_url: Annotated[
        str, Meta(description="TorchServe's management address, likewise: workers and queue")
    ] = ""
    retry_after_seconds: Annotated[
        int, Meta(ge=1, description="what a 503 tells the client to wait")
    ] = 1
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="least severe message that is logged"),
    ] = "info"

    def __repr__(self) -> str:
        """Show nothing: tokens are among it, and a log or a traceback is quickly written."""
        return "Settings(...)"

    @property
    def database_path(self) -> Path:
        """The database as a path."""
        return Path(self.database)


# What is refused beyond these is counted under their names.
LIMITS = (
    *(
        name
        for name in Settings.__struct_fields__
        if name.startswith("max_") and name != "max_future_seconds"
    ),
    "body_timeout_seconds",
    "ingest_timeout_seconds",
)


class SettingsError(ValueError):
    """A setting is unknown or has a value it cannot have; the message names it."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table."""

    name: str
    default: Any
    description: str
    choices: tuple[str, ...] = ()

    @property
    def environment_name(self) -> str:
        """Its environment variable."""
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        """Its command line flag."""
        return "--" + self.name.replace("_", "-")


def settings_table() -> list[Setting]:
    """Return every setting, in order of declaration."""
    hints = get_type_hints(Settings, include_extras=True)
    rows = []
    for field in msgspec.structs.fields(Settings):
        kind, *metadata = get_args(hints[field.name])
        description = next(meta.description for meta in metadata if meta.description)
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        rows.append(Setting(field.name, field.default, description, choices))
    return rows


def load_settings(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    commands: Mapping[str, str] | None = None,
) -> Settings:
    """Read flags and `STATE_*` variables. Raises `SettingsError`; `--help` exits.

    `commands`, with a sentence each, are what `--help` names besides.
    """
    table = settings_table()
    known = {row.environment_name: row.name for row in table}
    variables = given_variables(environment, ENVIRONMENT_PREFIX)
    if unknown := sorted(set(variables) - set(known)):
        raise SettingsError(
            f"unknown setting {', '.join(unknown)}: see python -m state_service --help"
        )
    given = {known[name]: value for name, value in variables.items()}
    flags = vars(_parser(table, commands or {}).parse_args(arguments))
    given.update({name: value for name, value in flags.items() if value is not None})
    try:
        return msgspec.convert(given, Settings, strict=False)
    except msgspec.ValidationError as error:
        reason, _, field = str(error).partition(" - at `$.")
        name = field.rstrip("`")
        raise SettingsError(f"{ENVIRONMENT_PREFIX}{name.upper()} ({name}): {reason}") from error


class _Help(argparse.HelpFormatter):
    """Keeps the lines of the description, in which commands are listed; wraps all the rest."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(
            super(_Help, self)._fill_text(line, width, indent)
            if not line.startswith("  ")
            else line
            for line in text.split("\n")
        )


def _parser(table: list[Setting], commands: Mapping[str, str]) -> argparse.ArgumentParser:
    others = "".join(f"\n  {name:8}{sentence}" for name, sentence in commands.items())
    parser = argparse.ArgumentParser(
        prog="python -m state_service",
        allow_abbrev=False,
        description="Keep every user's recent scores and answer their exact rolling median.\n\n"
        f"Instead of flags, a command may follow; COMMAND --help tells more:{others}",
        epilog=f"Every setting is also an environment variable: {ENVIRONMENT_PREFIX}<NAME>.",
        formatter_class=_Help,
    )
    for row in table:
        choices = f" ({', '.join(row.choices)})" if row.choices else ""
        parser.add_argument(
            row.flag,
            metavar=row.name.rpartition("_")[2].upper(),
            help=f"{row.description}{choices} [{row.environment_name}, {row.default}]",
        )
    return parser
