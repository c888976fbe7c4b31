"""What the parts of one stack show each other to be let in.

The state service's tokens are given once, as its own settings; here they are handed on. TorchServe
makes keys of its own at every start, when its token authorization is on, and writes them into
`key_file.json` in the folder that it runs in. So the file is read anew at every use.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from stack.files import default_var

KEY_FILE = "key_file.json"


def default_key_file(port_offset: int = 0) -> Path:
    """Return where the TorchServe of a stack writes its keys."""
    return Path(os.environ.get("STACK_KEY_FILE") or default_var(port_offset) / KEY_FILE)


def key_header(key_file: Path, use: Literal["inference", "management"]) -> dict[str, str]:
    """Return the header that TorchServe asks for; none when it has written no keys."""
    key = _key(key_file, use)
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def handler_variables(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the variables that let the handler record, unless it has been given its own.

    File names are relative to `folder`, the state service's; a worker runs elsewhere.
    """
    own = "HANDLER_STATE_TOKEN"
    return _renamed(_given(environment, own, "STATE_WRITE_TOKEN"), own, folder)


def generator_variables(
    environment: Mapping[str, str], folder: Path, key_file: Path
) -> dict[str, str]:
    """Return the variables that let the generator send and verify, unless it has its own."""
    own = "GENERATOR_STATE_TOKEN"
    given = _given(environment, own, "STATE_READ_TOKEN", "STATE_WRITE_TOKEN")
    variables = _renamed(given, own, folder)
    key = _key(key_file, "inference")
    if key is not None and not _given(environment, "GENERATOR_TOKEN"):
        variables["GENERATOR_TOKEN"] = key
    return variables


def _key(key_file: Path, use: str) -> str | None:
    try:
        keys: dict[str, dict[str, str]] = json.loads(key_file.read_bytes())
    except (OSError, ValueError):  # the latter while it is being written
        return None
    return keys[use]["key"]


def _given(environment: Mapping[str, str], *names: str) -> dict[str, str]:
    """Return how the first of these tokens is given, by suffix: itself, or a file's name."""
    for name in names:
        given = {
            suffix: environment[name + suffix]
            for suffix in ("", "_FILE")
            if name + suffix in environment
        }
        if given:
            return given
    return {}


def _renamed(given: Mapping[str, str], name: str, folder: Path) -> dict[str, str]:
    return {
        name + suffix: str((folder / value).resolve()) if suffix else value
        for suffix, value in given.items()
    }
