"""Write docs/settings.md from the tables that the programs read: `python -m stack.reference`."""

import sys
from pathlib import Path

from state_service.settings import Setting, settings_table

DOCUMENT = Path(__file__).parents[1] / "docs" / "settings.md"

_HEAD = """# The state service's settings

Written from the code by `python -m stack.reference`. Each is a flag and a variable; the flag wins.
What is beyond a limit is answered as [limits.md](limits.md) says. The handler's settings are in the
[README](../README.md#configure); TorchServe's in `config.properties`, each also as `TS_<NAME>`.

| flag | variable | default | |
|---|---|---|---|
"""


def reference() -> str:
    """Return the document."""
    return _HEAD + "".join(map(_row, settings_table()))


def _row(setting: Setting) -> str:
    default = "" if setting.default in {None, ""} else f"`{setting.default}`"
    choices = (
        f": {', '.join(f'`{choice}`' for choice in setting.choices)}" if setting.choices else ""
    )
    return (
        f"| `{setting.flag}` | `{setting.environment_name}` | {default} | "
        f"{setting.description.replace('|', '/')}{choices} |\n"
    )


def main() -> None:
    """Write the document."""
    DOCUMENT.write_text(reference())
    sys.stdout.write(f"wrote {DOCUMENT}\n")


if __name__ == "__main__":
    main()
