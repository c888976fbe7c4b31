"""Where log messages go: to stderr, as lines for a person or, for a machine, one JSON object each.

That holds for libraries' messages as well. What a client sends is never part of a line's form: JSON
escapes it, and of a request that is no HTTP nothing is logged, for anybody could fill the log.
"""

import contextlib
import logging
import sys
from typing import TextIO, cast

import structlog
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError


def configure_logging(level: str) -> None:
    """Set up structlog and, for libraries, the standard library's logging."""
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    shown = cast("TextIO", _Lossy(sys.stderr))
    common: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        processors=[*common, renderer],
        logger_factory=structlog.WriteLoggerFactory(shown),
    )
    libraries = logging.StreamHandler(shown)
    libraries.addFilter(_is_no_clients_fault)
    libraries.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=common,
        )
    )
    logging.basicConfig(handlers=[libraries], level=logging.WARNING, force=True)


class _Lossy:
    """A stream that may lose what is written: a log that nobody takes must not end the service.

    A closed terminal, a reader of a pipe that has ended, a full disk.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def _is_no_clients_fault(record: logging.LogRecord) -> bool:
    """Tell whether a message is about more than one client's malformed request."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | RequestPayloadError)
