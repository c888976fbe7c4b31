"""Ordering events by (slot, score): the one sort behind every segment. Pure numpy.

A comparison sort of 65,536 events costs 160 ns an event. numpy sorts 16-bit integers by radix,
4 to 12 ns an event, so the order is built from such digits, least significant first, each sorted
stably: the upper 32 bits of the score, as an integer that ascends as the score does (sign,
exponent and 20 bits of the fraction), then the slot. Two scores of one user that agree in those
32 bits are rare, and where they ended up in the wrong order their group is sorted by comparison.
So the order is always exact; only how long it takes depends on the scores.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Ordered(NamedTuple):
    """`order` intp [n], and the two keys in that order."""

    order: NDArray[np.intp]
    slots: NDArray[np.int32]
    scores: NDArray[np.float64]


def by_slot_then_score(slots: NDArray[np.int32], scores: NDArray[np.float64]) -> Ordered:
    """Sort n events by slot (int32 >= 0), then by score (float64, no NaN).

    O(n) radix passes; O(m log m) more for m events whose scores agree in their upper half.
    """
    upper = _ascending_bits(scores)
    digits = [upper.astype(np.uint16), (upper >> 16).astype(np.int16), slots.astype(np.uint16)]
    if slots.max(initial=0) >> 16:
        digits.append((slots >> 16).astype(np.uint16))
    order = digits[0].argsort(kind="stable")
    for digit in digits[1:]:
        order = order[digit[order].argsort(kind="stable")]
    sorted_slots, sorted_scores = slots[order], scores[order]
    same_user = sorted_slots[1:] == sorted_slots[:-1]
    if (same_user & (sorted_scores[1:] < sorted_scores[:-1])).any():
        sorted_upper = upper[order]
        tied = same_user & (sorted_upper[1:] == sorted_upper[:-1])
        member = np.zeros(len(order), bool)
        member[1:] = tied
        member[:-1] |= tied
        # Groups keep their places: only within each does the comparison change anything.
        order[member] = order[member][np.lexsort((sorted_scores[member], sorted_slots[member]))]
        sorted_scores = scores[order]
    return Ordered(order, sorted_slots, sorted_scores)


def _ascending_bits(scores: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return the upper 32 bits of each score, flipped where negative so that they ascend."""
    bits = (np.ascontiguousarray(scores).view(np.int64) >> 32).astype(np.int32)
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
