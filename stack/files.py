"""What the stack is started with, and where it keeps what it makes."""

from pathlib import Path

_PACKAGE = Path(__file__).parent
# Part of the package, so that a wheel has them; in a clone, links to those beside the Makefile.
SERVER_CONFIG = _PACKAGE / "config.properties"
LOG_CONFIG = _PACKAGE / "log4j2.xml"
SUPERVISOR_CONFIG = _PACKAGE / "supervisord.conf"
IN_CLONE = (_PACKAGE.parent / "pyproject.toml").is_file()
# Models, data and logs lie in the clone; installed from a wheel, in the folder of the start.
ROOT = _PACKAGE.parent if IN_CLONE else Path.cwd()


def default_var(port_offset: int = 0) -> Path:
    """Return the folder of one stack's data and logs: two stacks must not share one."""
    default = ROOT / "var"
    return default / f"offset-{port_offset}" if port_offset else default


def read_property(config: Path, name: str) -> str | None:
    """Return one value of a Java properties file; the last line wins, as in Java."""
    found = None
    for line in config.read_text(encoding="utf-8").splitlines():
        key, separator, value = line.partition("=")
        if separator and key.strip() == name:
            found = value.strip()
    return found
