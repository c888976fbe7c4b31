"""The handler's settings: the `handler:` section of the model YAML, then `HANDLER_*` variables.

The YAML travels inside the archive and describes the model; the environment says where this
deployment's state service is. Unknown names are refused in both, so that a typo is seen at
start and not at night.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

ENVIRONMENT_PREFIX = "HANDLER_"

Positive = Annotated[int, Meta(gt=0)]


class HandlerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One deployment's handler settings, each with its default."""

    # The model: fixed in the archive.
    factory: str = "handler.network:build"  # module:callable, takes the feature count
    features: Positive = 3
    weights: str = "inefficient_model.pt"  # a state_dict in the archive
    # The deployment.
    state_url: Annotated[str, Meta(pattern=r"^https?://[!-~]+$")] = "http://127.0.0.1:8090"
    state_token: str | None = None  # its write token; better as a file, which no environment shows
    state_token_file: str | None = None
    forward_timeout_seconds: Annotated[float, Meta(gt=0, le=30)] = 2.0  # << responseTimeout
    retry_after_seconds: Positive = 1
    # Where scores wait while the state service is away: one file for all workers of a host; ""
    # for none, and requests get a 503 meanwhile.
    spool: str = ""
    spool_max_bytes: Annotated[int, Meta(ge=1 << 20)] = 1 << 30
    spool_max_age_seconds: Annotated[float, Meta(gt=0)] = 3600.0  # at least the window's length
    log_level: Literal["debug", "info", "warning", "error"] = "info"  # least severe that is logged
    # Limits.
    max_body_bytes: Positive = 16 * 1024 * 1024
    max_events: Positive = 50_000
    max_user_id_bytes: Positive = 256
    max_idempotency_key_bytes: Positive = 128
    max_errors_listed: Positive = 100

    def __repr__(self) -> str:
        """Show nothing: a token is among it, and a log or a traceback is quickly written."""
        return "HandlerSettings(...)"


class SettingsError(ValueError):
    """A setting is unknown or has a value it cannot have; the message names it."""


def load_settings(
    model_yaml: Mapping[str, Any] | None, environment: Mapping[str, str]
) -> HandlerSettings:
    """Merge the model YAML's `handler:` section with `HANDLER_*`; the environment wins."""
    section = (model_yaml or {}).get("handler") or {}
    if not isinstance(section, Mapping):
        raise SettingsError("model YAML: 'handler' must be a mapping of settings")
    known = {ENVIRONMENT_PREFIX + name.upper() for name in HandlerSettings.__struct_fields__}
    unknown = sorted(name for name in environment if name.startswith(ENVIRONMENT_PREFIX))
    if unknown := [name for name in unknown if name not in known]:
        raise SettingsError(
            f"unknown setting {', '.join(unknown)}: known are {', '.join(sorted(known))}"
        )
    overrides = {
        name.removeprefix(ENVIRONMENT_PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(ENVIRONMENT_PREFIX)
    }
    try:
        return msgspec.convert({**section, **overrides}, HandlerSettings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(
            f"handler settings: {error} (model YAML 'handler:' or {ENVIRONMENT_PREFIX}*)"
        ) from error


def read_state_token(settings: HandlerSettings) -> str | None:
    """Return the token to send to the state service, None for none.

    Raises `SettingsError`, which never holds the token, for one that cannot be sent.
    """
    token, file = settings.state_token, settings.state_token_file
    if token is not None and file is not None:
        raise SettingsError("handler settings: give state_token or state_token_file, not both")
    if file is not None:
        try:
            token = Path(file).read_bytes().decode("latin-1").removesuffix("\n")
        except OSError as error:
            raise SettingsError(
                f"handler settings: state_token_file: {file}: {error.strerror}"
            ) from None
    if token is not None and not (token and token.isascii() and token.isprintable()):
        raise SettingsError(
            "handler settings: state_token must be of ASCII characters, and not empty "
            f"({ENVIRONMENT_PREFIX}STATE_TOKEN or {ENVIRONMENT_PREFIX}STATE_TOKEN_FILE)"
        )
    return token
