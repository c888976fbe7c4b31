"""The unit that a timestamp is probably in, told by its size. Pure.

Seconds of the years 1973 to 5138 have 9 to 11 digits before the point. Each finer unit has three
more, so that their sizes do not overlap.
"""

MOST_EPOCH_SECONDS = 1e11  # in the year 5138; in milliseconds that was in 1973

_FINER = (
    (1e14, "milliseconds", 1_000),
    (1e17, "microseconds", 1_000_000),
    (1e20, "nanoseconds", 1_000_000_000),
)


def unit_of(moment: float) -> tuple[str, int] | None:
    """Return the finer unit that a moment is probably in, and how many of it are a second.

    None for what can be seconds, and for what no unit makes a moment of our time.

    >>> unit_of(1.7e12)
    ('milliseconds', 1000)
    """
    if moment < MOST_EPOCH_SECONDS:
        return None
    return next(((unit, divisor) for end, unit, divisor in _FINER if moment < end), None)


def hint_of_future(newest: float) -> str | None:
    """Say what to do about a timestamp that lies ahead, when its size tells.

    >>> hint_of_future(1.7e15)
    'timestamps look like microseconds: divide them by 1000000, epoch seconds are wanted'
    """
    if (finer := unit_of(newest)) is None:
        return None
    unit, divisor = finer
    return f"timestamps look like {unit}: divide them by {divisor}, epoch seconds are wanted"
