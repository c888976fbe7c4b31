"""What can end a run early; each message is one sentence for the reader.

GeneratorError
├── UnreachableError    a service can't be used at the start: exit 2
└── UnverifiableError   the medians couldn't be fetched or compared: exit 1
"""

import os


class GeneratorError(Exception):
    """Base of this package's errors."""


class UnreachableError(GeneratorError):
    """A service can't be used; the message names its URL and the fix."""


class UnverifiableError(GeneratorError):
    """The verification itself failed, which is no verdict on the medians."""


def why(error: Exception) -> str:
    """Put a network error in a few words, as the operating system would."""
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    return str(error) or type(error).__name__
