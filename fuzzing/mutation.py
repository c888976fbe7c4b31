"""One body -> one that is a little, or very, wrong. Pure: the same random stream spoils alike."""

from collections.abc import Callable
from random import Random

from fuzzing.tokens import BYTES

_MOST_BYTES = 1 << 16  # doubling a body again and again stops here


def spoil(body: bytes, random: Random) -> bytes:
    """Change a body in one to four places."""
    for _ in range(random.choice((1, 1, 1, 2, 2, 4))):
        body = random.choice(_WAYS)(body, random)
    return body


def _place(body: bytes, random: Random) -> int:
    return random.randrange(len(body)) if body else 0


def _range(body: bytes, random: Random) -> tuple[int, int]:
    start = _place(body, random)
    return start, min(len(body), start + random.choice((1, 1, 2, 4, 8, 32, 200)))


def _flip(body: bytes, random: Random) -> bytes:
    if not body:
        return body
    spoilt = bytearray(body)
    spoilt[_place(body, random)] ^= 1 << random.randrange(8)
    return bytes(spoilt)


def _overwrite(body: bytes, random: Random) -> bytes:
    at, token = _place(body, random), random.choice(BYTES)
    return body[:at] + token + body[at + len(token) :]


def _insert(body: bytes, random: Random) -> bytes:
    at = _place(body, random)
    return body[:at] + random.choice(BYTES) + body[at:]


def _cut(body: bytes, random: Random) -> bytes:
    return body[: _place(body, random)]


def _remove(body: bytes, random: Random) -> bytes:
    start, end = _range(body, random)
    return body[:start] + body[end:]


def _repeat(body: bytes, random: Random) -> bytes:
    start, end = _range(body, random)
    return (body[:end] + body[start:end] * random.choice((1, 2, 30)) + body[end:])[:_MOST_BYTES]


def _move(body: bytes, random: Random) -> bytes:
    start, end = _range(body, random)
    rest = body[:start] + body[end:]
    at = _place(rest, random)
    return rest[:at] + body[start:end] + rest[at:]


def _integer(body: bytes, random: Random) -> bytes:
    """Change four aligned bytes, as offsets and lengths in binary formats are."""
    at = _place(body, random) & ~3
    value = random.choice((0, 1, 4, 8, 255, 2**31 - 1, 2**31, 2**32 - 1, random.getrandbits(32)))
    return body[:at] + value.to_bytes(4, random.choice(("little", "big"))) + body[at + 4 :]


_WAYS: tuple[Callable[[bytes, Random], bytes], ...] = (
    _flip, _flip, _overwrite, _insert, _cut, _remove, _repeat, _move, _integer,
)  # fmt: skip
