"""The tokens that open the service, and what a start without them refuses.

A read token may ask, an ingest token may send events on to TorchServe and nothing else, a write
token may do all that and change things. Each is given as it is or as a file that holds it: a file
is seen neither in the environment nor by `ps`. Without any token whoever reaches the service may
do everything, so it then listens on loopback alone unless it is told otherwise.
"""

import hmac
import ipaddress
from dataclasses import dataclass
from enum import Flag
from pathlib import Path

from state_service.settings import ENVIRONMENT_PREFIX, Settings, SettingsError

_MIN_TOKEN_CHARS = 16


class Right(Flag):
    """What a request needs, and what a token gives: a write token gives all of it."""

    NOTHING = 0
    READ = 1
    INGEST = 2
    WRITE = 4
    ALL = READ | INGEST | WRITE


@dataclass(frozen=True, slots=True, repr=False)  # a token must not be in a log by accident
class Tokens:
    """The tokens in force; none of them: no token is asked for."""

    read: bytes | None = None
    write: bytes | None = None
    ingest: bytes | None = None

    @property
    def required(self) -> bool:
        """Whether requests need one."""
        return self.write is not None

    def right_of(self, given: bytes) -> Right:
        """Return what a token gives, in a time that does not depend on how much of it is right."""
        rights = Right.NOTHING
        for token, right in (
            (self.read, Right.READ),
            (self.ingest, Right.INGEST),
            (self.write, Right.ALL),
        ):
            if token is not None and hmac.compare_digest(given, token):
                rights |= right
        return rights


def load_tokens(settings: Settings) -> Tokens:
    """Return the tokens that the settings name.

    Raises `SettingsError`, which never holds a token, for one that cannot be used, and for an
    address beyond loopback without any.
    """
    write = _token(settings, "write_token")
    lesser = {name: _token(settings, name) for name in ("read_token", "ingest_token")}
    for name, token in lesser.items():
        if token is not None and write is None:
            raise SettingsError(
                f"{_named(name)} is set and write_token is not: nobody could record; set "
                "write_token or write_token_file too"
            )
        if token is not None and token == write:
            raise SettingsError(
                f"{_named(name)} is also the write_token: make them two, or leave {name} out, as "
                "the write token may do that too"
            )
    read, ingest = lesser.values()
    if read is not None and read == ingest:
        raise SettingsError(
            f"{_named('read_token')} is also the ingest_token: make them two, as who sends events "
            "need not be able to read"
        )
    if write is None and not (settings.allow_anonymous or is_loopback(settings.host)):
        raise SettingsError(
            f"STATE_HOST (host): whoever reaches {settings.host or 'any address'} could read and "
            "write: set write_token_file and read_token_file, or allow_anonymous=true where the "
            "network lets nobody else in"
        )
    return Tokens(read, write, ingest)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches a service that listens there."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _token(settings: Settings, name: str) -> bytes | None:
    given: str | None = getattr(settings, name)
    file: str | None = getattr(settings, f"{name}_file")
    if given is not None and file is not None:
        raise SettingsError(f"{_named(name)}: give it or {name}_file, not both")
    if file is not None:
        name = f"{name}_file"
        try:
            # Editors and `echo` end a file with a newline; it is not part of the token.
            given = Path(file).read_bytes().decode("latin-1").removesuffix("\n")
        except OSError as error:
            raise SettingsError(f"{_named(name)}: {file}: {error.strerror}") from None
    if given is None:
        return None
    if len(given) < _MIN_TOKEN_CHARS:
        raise SettingsError(
            f"{_named(name)}: a token has at least {_MIN_TOKEN_CHARS} characters, such as "
            "`openssl rand -hex 32` makes"
        )
    if not (given.isascii() and given.isprintable()) or " " in given:
        raise SettingsError(
            f"{_named(name)}: a token has only ASCII characters, none of them blank"
        )
    return given.encode("ascii")


def _named(name: str) -> str:
    return f"{ENVIRONMENT_PREFIX}{name.upper()} ({name})"
