"""What the types of a question cannot say: checks that refuse a value and name it. Pure."""

from state_service.errors import InvalidRequestError
from state_service.settings import Settings
from state_service.units import MOST_EPOCH_SECONDS, unit_of


def check_window(window: float | None, settings: Settings) -> None:
    """Refuse a window that is not positive or longer than the configured one."""
    if window is not None and not 0 < window <= settings.window_seconds:
        raise InvalidRequestError(
            f"window must be more than 0 and at most {settings.window_seconds:g} seconds"
        )


def check_moment(name: str, moment: float | None) -> None:
    """Refuse a time that is beyond every calendar, and say what it was meant to be."""
    if moment is None or moment < MOST_EPOCH_SECONDS:
        return
    if finer := unit_of(moment):
        unit, in_a_second = finer
        raise InvalidRequestError(
            f"{name} is in epoch seconds; {moment:.0f} looks like {unit}: ask for "
            f"{name}={moment / in_a_second:.3f}"
        )
    raise InvalidRequestError(
        f"{name} is in epoch seconds, less than {MOST_EPOCH_SECONDS:.0f}: for this moment, leave "
        f"{name} out"
    )


def check_user_id(user_id: str, settings: Settings) -> None:
    """Refuse a user id that no event can have."""
    if not 1 <= utf8_length(user_id) <= settings.max_user_id_bytes:
        raise InvalidRequestError(
            f"user_id must have 1 to {settings.max_user_id_bytes} bytes",
            limit="max_user_id_bytes" if user_id else None,
        )


def check_user_ids(user_ids: list[str], place: str, max_bytes: int) -> None:
    """Refuse a column with a user id that no event can have, and name its place."""
    # A UTF-8 character has at most 4 bytes: almost always one look at the lengths is enough.
    lengths = set(map(len, user_ids))
    if 0 not in lengths and max(lengths, default=0) * 4 <= max_bytes:
        return
    for index, user_id in enumerate(user_ids):
        if not 1 <= utf8_length(user_id) <= max_bytes:
            raise InvalidRequestError(
                f"{place}[{index}] must have 1 to {max_bytes} bytes",
                limit="max_user_id_bytes" if user_id else None,
            )


def utf8_length(text: str) -> int:
    """Return how many bytes a text takes, also one that is no UTF-8."""
    return len(text.encode("utf-8", "surrogatepass"))
