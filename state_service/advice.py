"""What to type instead of an address, or a method, that is not there. Pure."""

import difflib
import re
from collections.abc import Iterable

from state_service.parameters import PARAMETERS

_LIVES = "ask /healthz whether the process lives, /readyz whether it serves"
_SCORES = "TorchServe answers that, at its own port (8080 by default); here is POST /ingest"
_MANAGES = "TorchServe's management answers that, at its own port (8081 by default)"
_DESCRIBES = "the description is at /openapi.json, and to read at /docs"
# By an address's first part.
_INSTEAD = {
    **dict.fromkeys(("alive", "health", "healthcheck", "healthy", "live", "liveness"), _LIVES),
    **dict.fromkeys(("livez", "ping", "ready", "readiness", "startupz", "status"), _LIVES),
    **dict.fromkeys(("explanations", "invocations", "predict", "predictions", "v1", "v2"), _SCORES),
    "models": _MANAGES,
    **dict.fromkeys(("api", "api-docs", "openapi", "openapi.yaml", "redoc", "swagger"), _DESCRIBES),
    "swagger.json": _DESCRIBES,
    "swagger-ui": _DESCRIBES,
}
_BODIES = {"/medians": '{"user_ids": ["alice"]}', "/scores": '{"batches": […]}'}
_OF_A_USER = ("median", "stats", "scores")
_NOTHING_NEAR = "/docs lists what there is"
_MAX_SHOWN_CHARS = 200

_TEMPLATES = sorted({path for _, path in PARAMETERS})
_THERE = re.compile("|".join(re.sub(r"{\w+}", "[^/]+", path) for path in _TEMPLATES))


def instead_of(path: str) -> str:
    """Return what to type instead of an address at which there is nothing, as it was sent.

    >>> instead_of("/stats/")
    'there is nothing at /stats/: write /stats'
    """
    return f"there is nothing at {_shown(path)}: {_shown(_instead(path))}"


def instead_of_method(method: str, path: str, allowed: Iterable[str]) -> str:
    """Return what to type instead of a method that an address does not answer.

    >>> instead_of_method("POST", "/stats", {"GET", "HEAD"})
    'POST is not answered at this address, GET is'
    """
    answered = sorted(set(allowed) - {"HEAD"})
    said = f"{method[:20]} is not answered at this address, {', '.join(answered)} is"
    if body := _BODIES.get(path):
        return f"{said}, with a body such as {body}"
    if answered == ["DELETE"]:
        return f"{said}, and forgets the user; ask GET {_shown(path)}/median, /stats or /scores"
    return said


def _instead(path: str) -> str:
    parts = path.split("/")[1:]
    if not parts:  # `*`, which OPTIONS may ask, is no path
        return _NOTHING_NEAR
    within = [part for part in parts if part]
    if parts[0] == "users" and parts[-1] in _OF_A_USER and len(parts) != 3:
        return f"a slash in a user id is written %2F: /users/{'%2F'.join(parts[1:-1])}/{parts[-1]}"
    if parts[0] == "users" and len(parts) == 3 and not parts[1]:
        return f"the user id is missing: /users/alice/{parts[2]}"
    tidy = "/" + "/".join(within)
    if tidy != path and _THERE.fullmatch(tidy):
        return f"write {tidy}"
    if sentence := _INSTEAD.get(within[0].lower()):
        return sentence
    near = [template for template in _TEMPLATES if "{" not in template]
    if within[0] == "users" and len(within) == 3:
        near = [f"/users/{within[1]}/{what}" for what in _OF_A_USER]
    close = difflib.get_close_matches(tidy[:_MAX_SHOWN_CHARS], near, 1, 0.75)
    return f"did you mean {close[0]}?" if close else _NOTHING_NEAR


def _shown(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}…"
