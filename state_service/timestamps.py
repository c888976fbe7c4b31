"""Timestamps in half the room, exactly. Pure numpy.

Today's epoch seconds are multiples of 2**-22 s in float64: that is the distance between two
neighbours. So a column that spans less than 1,024 s can be kept as 32-bit counts of such ticks
from its oldest timestamp. Whether that loses nothing is not assumed but tried, column by column;
a column that does not come back to the last bit is kept as float64.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TICK_SECONDS = 2.0**-22
_MAX_TICKS = 2.0**32 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Timestamps:
    """A column of n timestamps: `origin + column * unit`, exactly, and ascending in `column`."""

    origin: float
    unit: float
    column: NDArray[np.uint32] | NDArray[np.float64]

    @classmethod
    def pack(cls, timestamps: NDArray[np.float64]) -> "Timestamps":
        """Keep n >= 1 timestamps as ticks where that is exact, as float64 where not. O(n)."""
        origin = float(timestamps.min())
        with np.errstate(over="ignore"):  # then they are too far apart anyway
            ticks = timestamps - origin
            ticks *= 1 / TICK_SECONDS
        if ticks.max() <= _MAX_TICKS:
            packed = cls(origin, TICK_SECONDS, ticks.astype(np.uint32))
            if np.array_equal(packed.decoded(), timestamps):
                return packed
        return cls(0.0, 1.0, timestamps)

    def take(self, order: NDArray[np.intp]) -> "Timestamps":
        """Return the entries at these places, in their order."""
        return Timestamps(self.origin, self.unit, self.column[order])

    def decoded(self, where: slice | NDArray[np.intp] = slice(None)) -> NDArray[np.float64]:
        """Return the timestamps at some places as float64."""
        decoded = np.multiply(self.column[where], self.unit, dtype=np.float64)
        decoded += self.origin
        return decoded

    def edges(self) -> tuple[float, float]:
        """Return the oldest and the newest timestamp. O(n)."""
        low, high = float(self.column.min()), float(self.column.max())
        return self.origin + low * self.unit, self.origin + high * self.unit

    def newest(self, where: slice) -> float:
        """Return the newest timestamp of a non-empty slice."""
        return self.origin + float(np.maximum.reduce(self.column[where])) * self.unit
