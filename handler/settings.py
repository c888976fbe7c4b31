"""The handler's settings: the `handler:` section of the model YAML, then `HANDLER_*` variables.

The YAML travels inside the archive and describes the model; the environment says where this
deployment's state service is. Unknown names are refused in both, so that a typo is seen at
start and not at night.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from handler.environment import given

ENVIRONMENT_PREFIX = "HANDLER_"

Positive = Annotated[int, Meta(gt=0)]
FeatureName = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"\A[^\x00-\x1f\x7f]+\Z")]


class HandlerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One deployment's handler settings. docs/settings.md is written from their descriptions."""

    # The model: fixed in the archive.
    factory: Annotated[
        str,
        Meta(description="module:callable that builds the network; called with the feature count"),
    ] = "handler.network:build"
    features: Annotated[
        Positive | Annotated[tuple[FeatureName, ...], Meta(min_length=1, max_length=10_000)],
        Meta(
            description="how many numbers an event must have; in the YAML a list of their names "
            "will do as well, and errors then name them"
        ),
    ] = 3
    weights: Annotated[str, Meta(description="state_dict in the archive")] = "inefficient_model.pt"
    # The deployment.
    state_url: Annotated[
        str, Meta(pattern=r"^https?://[!-~]+$", description="the state service; `make run` sets it")
    ] = "http://127.0.0.1:8090"
    state_token: Annotated[
        str | None,
        Meta(description="its write token; better as a file: environments are seen"),
    ] = None
    state_token_file: Annotated[str | None, Meta(description="file that holds the token")] = None
    forward_timeout_seconds: Annotated[
        float,
        Meta(
            gt=0,
            le=30,
            description="time a batch waits for the state service; far below `responseTimeout`",
        ),
    ] = 2.0
    retry_after_seconds: Annotated[
        Positive, Meta(description="what a 503 tells the client to wait")
    ] = 1
    spool: Annotated[
        str,
        Meta(
            description="file in which scores wait for a state service that is away, one for all "
            "workers of a host; `make run` takes `var/spool.db`, containers a volume. Without "
            "one, requests get a 503 meanwhile"
        ),
    ] = ""
    spool_max_bytes: Annotated[
        int, Meta(ge=1 << 20, description="its largest size; beyond, requests get a 503")
    ] = 1 << 30
    spool_max_age_seconds: Annotated[
        float,
        Meta(
            gt=0,
            description="what has waited longer is dropped and counted; at least the window",
        ),
    ] = 3600.0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="least severe message that is logged; `debug` tells of every request"),
    ] = "info"
    # Limits.
    max_body_bytes: Annotated[Positive, Meta(description="largest request body")] = 16 << 20
    max_events: Annotated[Positive, Meta(description="most events in a request")] = 50_000
    max_user_id_bytes: Annotated[Positive, Meta(description="longest user id, in UTF-8")] = 256
    max_idempotency_key_bytes: Annotated[
        Positive, Meta(description="longest Idempotency-Key, in UTF-8")
    ] = 128
    max_errors_listed: Annotated[Positive, Meta(description="most errors in an answer")] = 100

    def __post_init__(self) -> None:
        """Refuse two features of one name: an error could not tell which."""
        times = Counter(self.feature_names)
        if repeated := next((name for name in times if times[name] > 1), None):
            raise ValueError(f"'features' names {repeated!r} more than once")

    @property
    def feature_count(self) -> int:
        """How many numbers an event must have."""
        return self.features if isinstance(self.features, int) else len(self.features)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Their names in order, or nothing where the YAML has only their number."""
        return () if isinstance(self.features, int) else self.features

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
    variables = given(environment, ENVIRONMENT_PREFIX)
    if unknown := sorted(set(variables) - known):
        raise SettingsError(
            f"unknown setting {', '.join(unknown)}: known are {', '.join(sorted(known))}"
        )
    overrides = {
        name.removeprefix(ENVIRONMENT_PREFIX).lower(): value for name, value in variables.items()
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
