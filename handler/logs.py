"""The handler's log: one JSON object a line, or text for a person, on stderr.

TorchServe reads a worker's stdout and stderr line by line and takes one that begins like a metric
for a metric. So whatever a message holds, a line of ours begins as it should: JSON escapes its
line ends, text indents what follows one.

A message carries more fields by `extra=fields(...)`. Names are those of the state service's log, so
that one search finds a request in both.
"""

import logging
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

ROOT = "handler"  # the parent of every logger of this package
FORMAT_VARIABLE = "MEDIANSERVE_LOG_FORMAT"  # "text" where a terminal shows it; else JSON

_MAX_SHOWN_IDS = 10


def fields(**values: object) -> dict[str, Any]:
    """Return fields for a log call's `extra`; those that are None or empty are left out.

    >>> fields(request_id="a", traceparent=None)
    {'fields': {'request_id': 'a'}}
    """
    return {"fields": {name: value for name, value in values.items() if value not in (None, [])}}


def shown_ids(ids: Iterable[str | None]) -> list[str]:
    """Return the first few of some requests' ids."""
    return [each for each in ids if each is not None][:_MAX_SHOWN_IDS]


class JsonLines(logging.Formatter):
    """A record as one JSON object: its fields, event, level, logger, timestamp, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line = {
            **getattr(record, "fields", {}),
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


class TextLines(logging.Formatter):
    """A record as text; what follows a line end is indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text, without its end."""
        shown = [f"{record.levelname} {record.name}: {record.getMessage()}"]
        shown += [f"{name}={value}" for name, value in getattr(record, "fields", {}).items()]
        text = " ".join(shown)
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return "\n  ".join(text.splitlines())


def configure_logging(environment: Mapping[str, str]) -> None:
    """Log to stderr: stdout, which TorchServe parses as a control channel, stays free of it."""
    log = logging.getLogger(ROOT)
    if not log.handlers:
        stream = logging.StreamHandler(sys.stderr)
        text = environment.get(FORMAT_VARIABLE) == "text"
        stream.setFormatter(TextLines() if text else JsonLines())
        log.addHandler(stream)
        log.setLevel(logging.INFO)
        log.propagate = False
