"""Write the reference in docs/ from what the programs read: `python -m stack.reference`.

Settings from their tables, commands from their `--help`, addresses from openapi.yaml.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from handler.settings import ENVIRONMENT_PREFIX, HandlerSettings
from state_service.documentation import load_spec
from state_service.settings import settings_table

DOCS = Path(__file__).parents[1] / "docs"

_WRITTEN = "Written from the code by `python -m stack.reference`."

_SETTINGS = f"""# Settings

{_WRITTEN} What is beyond a limit is answered as [limits.md](limits.md)
says. TorchServe's own are in `config.properties`, and its model's (batches, queue, timeouts) in
`handler/model-config.yaml`. A line of the former is also a variable, `TS_<NAME>`, with four
exceptions: `vmargs` and `decode_input_request` have none; `allowed_urls` is closed whatever the
environment says (`use_env_allowed_urls` would open it, and is not set on purpose); and that of
`token_expiration_min` is `TS_TOKEN_EXPIRATION_TIME_MIN`.

"""
_OF_THE_STATE_SERVICE = """## The state service

Each is a flag and a variable; the flag wins. An unknown variable is refused at the start, but for
what Kubernetes adds for a Service named `state` or `state-service` (`STATE_SERVICE_HOST`,
`STATE_PORT=tcp://…` and the like): that is ignored.

| flag | variable | default | |
|---|---|---|---|
"""
_OF_THE_HANDLER = """
## The handler

In the section `handler:` of the model YAML, which is packed into the archive; or a variable, which
wins. An unknown one of either is refused at the start. The first three describe the model.

| name | variable | default | |
|---|---|---|---|
"""

_COMMANDS = f"""# Commands

{_WRITTEN} `make help` lists what most people need; these are behind it.
Run them with `.venv/bin/python`.
"""
_PROGRAMS = (
    "stack",
    "stack.workers",
    "stack.probe",
    "generator run",
    "state_service check",
    "state_service dump",
    "state_service backup",
    "handler.create_model",
    "handler.archive",
    "chaos",
    "fuzzing bodies",
    "fuzzing servers",
)
# All in one process: torch alone takes seconds to import.
_ASK_FOR_HELP = """
import contextlib, io, json, runpy, sys
said = {}
for program in sys.argv[1:]:
    module, *arguments = program.split()
    sys.argv = [module, *arguments, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    said[program] = out.getvalue()
print(json.dumps(said))
"""
_STATE_SERVICE = """
## python -m state_service

Serves, with the settings of [settings.md](settings.md); or runs one of the commands that are named
`state_service` below.
"""

_REQUESTS = f"""# Requests

{_WRITTEN} All of it, with parameters, bodies, examples and every error:
[openapi.yaml](../state_service/openapi.yaml), which the state service shows at
<http://localhost:8090/docs>. What to do about an error: [errors.md](errors.md).
"""


def settings() -> str:
    """Return docs/settings.md."""
    state = "".join(
        _row(row.flag, row.environment_name, row.default, row.description, row.choices)
        for row in settings_table()
    )
    return _SETTINGS + _OF_THE_STATE_SERVICE + state + _OF_THE_HANDLER + "".join(_handler_rows())


def _handler_rows() -> Iterator[str]:
    hints = get_type_hints(HandlerSettings, include_extras=True)
    for field in msgspec.structs.fields(HandlerSettings):
        kind, *metadata = get_args(hints[field.name])
        description = next(meta.description for meta in metadata if meta.description)
        choices = get_args(kind) if set(map(type, get_args(kind))) == {str} else ()
        variable = ENVIRONMENT_PREFIX + field.name.upper()
        yield _row(field.name, variable, field.default, description, choices)


def _row(
    name: str, variable: str, default: object, description: str, choices: tuple[str, ...]
) -> str:
    shown = "" if default in {None, ""} else f"`{default}`"
    listed = f": {', '.join(f'`{choice}`' for choice in choices)}" if choices else ""
    return f"| `{name}` | `{variable}` | {shown} | {description.replace('|', '/')}{listed} |\n"


def commands() -> str:
    """Return docs/commands.md."""
    plain = {**os.environ, "TYPER_USE_RICH": "0", "COLUMNS": "88", "NO_COLOR": "1"}
    done = subprocess.run(  # noqa: S603 - our own programs
        [sys.executable, "-c", _ASK_FOR_HELP, *_PROGRAMS],
        env=plain, cwd=DOCS.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    parts = [_COMMANDS, _STATE_SERVICE]
    for program, said in msgspec.json.decode(done.stdout, type=dict[str, str]).items():
        text = "\n".join(line.rstrip() for line in said.strip().splitlines())
        parts.append(f"\n## python -m {program}\n\n```\n{text}\n```\n")
    return "".join(parts)


def requests() -> str:
    """Return docs/requests.md."""
    spec = load_spec()
    parts = [_REQUESTS]
    for tag in spec["tags"]:
        parts.append(f"\n## {tag['name'].capitalize()}\n\n{tag['description']}\n\n")
        parts.append("| request | | answers |\n|---|---|---|\n")
        parts += _request_rows(spec["paths"], tag["name"])
    return "".join(parts)


def _request_rows(paths: dict[str, Any], tag: str) -> Iterator[str]:
    for path, item in paths.items():
        for method in ("get", "post", "delete"):
            operation = item.get(method)
            if operation is not None and operation["tags"] == [tag]:
                statuses = ", ".join(sorted(set(operation["responses"]) - {"default"}))
                yield f"| `{method.upper()} {path}` | {operation['summary']} | {statuses} |\n"


DOCUMENTS: dict[str, Callable[[], str]] = {
    "settings.md": settings,
    "commands.md": commands,
    "requests.md": requests,
}


def main() -> None:
    """Write the documents."""
    for name, document in DOCUMENTS.items():
        (DOCS / name).write_text(document())
        sys.stdout.write(f"wrote docs/{name}\n")


if __name__ == "__main__":
    main()
