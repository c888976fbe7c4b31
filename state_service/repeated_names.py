"""Names that stand twice in one JSON object. Pure.

A decoder takes the last of them and drops the other without a word: scores would be lost inside a
200. RFC 8259, section 4, leaves to the reader what such an object means; here it is refused.
"""

import json
from collections.abc import Mapping

from state_service.errors import InvalidRequestError


def refuse_repeated_names(text: bytes, expected: Mapping[str, int]) -> None:
    """Raise `InvalidRequestError` where an object of a decoded body has a name twice.

    `expected` says how often each name stands in a body in which none is repeated. Only where one
    stands there more often, which a user's id may also be the reason of, is the body looked into.
    """
    counts = {name: text.count(b'"%s"' % name.encode()) for name in expected}
    if b"\\u" in text or any(counts[name] > most for name, most in expected.items()):
        # Numbers stay text: Python refuses to read integers of thousands of digits.
        json.loads(text, object_pairs_hook=_refuse_repeated, parse_int=str, parse_float=str)


def _refuse_repeated(pairs: list[tuple[str, object]]) -> None:
    seen = set()
    for name, _ in pairs:
        if name in seen:
            raise InvalidRequestError(
                f"'{name[:100]}' stands twice in one object, and which of them is meant is not "
                "known: leave one out"
            )
        seen.add(name)
