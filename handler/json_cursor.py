"""A lenient reader of JSON, so that one odd value does not cost the others. Pure.

It reads what JSON does not have but programs write: NaN, Infinity, -Infinity and numbers beyond
float64, as the floats that they mean; who looks at the value refuses it. The scanner is Python's
own, in C. It reads one value at a time, so that a hostile body costs little more than its text.
"""

import json
import math
import re
from collections.abc import Iterator
from json import JSONDecodeError

from handler.events import MAX_INTEGER_DIGITS

# What is no JSON at all; nesting too deep for the scanner is a RecursionError.
NOT_JSON = (JSONDecodeError, RecursionError)

_BLANKS = " \t\r\n"
_skip_blanks = re.compile(r"[ \t\r\n]*").match


def _integer(digits: str) -> int | float:
    """Read an integer; one of very many digits, which takes long, is beyond float64 anyway."""
    if len(digits) > MAX_INTEGER_DIGITS:
        return -math.inf if digits.startswith("-") else math.inf
    return int(digits)


_decode = json.JSONDecoder(parse_int=_integer).raw_decode


class Cursor:
    """A place in a text of JSON, which moves on as values are read.

    Every method may raise one of `NOT_JSON`, whose message names the place.
    """

    def __init__(self, text: str, at: int = 0) -> None:
        self._text = text
        self.at = at

    def peek(self) -> str:
        """Return the next character that is not blank, without reading it; "" at the end."""
        character = self._text[self.at : self.at + 1]
        if character in _BLANKS:  # so is the end
            match = _skip_blanks(self._text, self.at)
            assert match is not None  # no blanks are a match too
            self.at = match.end()
            character = self._text[self.at : self.at + 1]
        return character

    def value(self) -> object:
        """Read a whole value."""
        self.peek()
        value, self.at = _decode(self._text, self.at)
        return value

    def elements(self) -> Iterator[object]:
        """Read an array, and yield each element as it is read."""
        self._take("[")
        if self._takes("]"):
            return
        text = self._text
        while True:
            value = self.value()
            yield value
            if text.startswith(", ", self.at):  # the same as below, for what most programs write
                self.at += 2
                continue
            if self._takes("]"):
                return
            self._take(",")

    def members(self) -> Iterator[str]:
        """Read an object, and yield each key; its value is to be read before the next is asked."""
        self._take("{")
        if self._takes("}"):
            return
        while True:
            if self.peek() != '"':
                raise JSONDecodeError("Expecting a name in double quotes", self._text, self.at)
            key = self.value()
            self._take(":")
            yield str(key)
            if self._takes("}"):
                return
            self._take(",")

    def _takes(self, character: str) -> bool:
        found = self.peek() == character
        self.at += found
        return found

    def _take(self, character: str) -> None:
        if not self._takes(character):
            raise JSONDecodeError(f"Expecting '{character}'", self._text, self.at)
