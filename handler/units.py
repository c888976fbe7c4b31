"""The unit that a timestamp is probably in, told by its size. Pure.

Seconds of the years 1973 to 5138 have 9 to 11 digits before the point. Each finer unit has three
more, so that their sizes do not overlap.
"""

_FINER = (
    (1e11, 1e14, "milliseconds", "1000"),
    (1e14, 1e17, "microseconds", "1000000"),
    (1e17, 1e20, "nanoseconds", "1000000000"),
)
# Less is a moment of 1970 to 1973: seconds since a start, or no seconds at all.
_EARLIEST = 1e8


def hint_of_future(newest: float) -> str | None:
    """Say what to do about a timestamp that lies ahead, when its size tells.

    >>> hint_of_future(1.7e15)
    'timestamps look like microseconds: divide them by 1000000, epoch seconds are wanted'
    """
    for least, end, unit, divisor in _FINER:
        if least <= newest < end:
            return (
                f"timestamps look like {unit}: divide them by {divisor}, epoch seconds are wanted"
            )
    return None


def hint_of_late(oldest: float) -> str | None:
    """Say what to do about a timestamp that lies behind, when its size tells."""
    if abs(oldest) >= _EARLIEST:
        return None
    return (
        f"a timestamp is {oldest:g}, some moment around 1970: epoch seconds are wanted, "
        "such as Python's time.time()"
    )
