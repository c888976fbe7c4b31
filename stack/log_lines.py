"""What both processes log, one JSON object a line, shown to a person. Pure."""

import json

_LEFT_OUT = {"timestamp", "logger"}


def readable(line: str) -> str:
    r"""Return a line of a log as text; one that is no JSON object of a log as it is.

    >>> readable('{"event": "snapshot failed", "level": "error", "reason": "disk full"}')
    'error: snapshot failed (reason: disk full)'
    """
    try:
        message = json.loads(line)
    except ValueError:
        return line
    if not (isinstance(message, dict) and "event" in message and "level" in message):
        return line
    event, level = message.pop("event"), message.pop("level")
    exception = message.pop("exception", "")
    more = [f"{name}: {value}" for name, value in message.items() if name not in _LEFT_OUT]
    text = f"{level}: {event}" + (f" ({', '.join(more)})" if more else "")
    return f"{text}\n{exception}" if exception else text
