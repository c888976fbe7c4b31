"""The unit that a timestamp is probably in, told by its size. Pure.

Seconds of the years 1973 to 5138 have 9 to 11 digits before the point. Each finer unit has three
more, so that their sizes do not overlap.
"""

_FINER = (
    (1e11, 1e14, "milliseconds", 1_000),
    (1e14, 1e17, "microseconds", 1_000_000),
    (1e17, 1e20, "nanoseconds", 1_000_000_000),
)


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
