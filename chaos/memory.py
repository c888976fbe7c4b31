"""How the memory of each process goes on: samples, and what they come to."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

_SAMPLE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Course:
    """One process's resident size in MiB: after so much of its samples, and the most."""

    process: str
    first: float
    quarter: float
    half: float
    three_quarters: float
    last: float
    most: float


@dataclass(slots=True)
class Memory:
    """Samples `sizes`, MiB by process, while `watch` runs."""

    sizes: Callable[[], Mapping[str, float]]
    samples: dict[str, list[float]] = field(default_factory=dict)

    async def watch(self) -> None:
        """Take a sample every two seconds until cancelled."""
        while True:
            for process, mib in self.sizes().items():
                self.samples.setdefault(process, []).append(mib)
            await asyncio.sleep(_SAMPLE_SECONDS)

    def courses(self) -> list[Course]:
        """Return how each process seen has gone, by name."""
        return [course_of(process, seen) for process, seen in sorted(self.samples.items())]


def course_of(process: str, samples: list[float]) -> Course:
    """Return the course that samples, at least one, have taken.

    >>> course_of("x", [1.0, 2.0, 3.0, 9.0, 5.0])
    Course(process='x', first=1.0, quarter=2.0, half=3.0, three_quarters=9.0, last=5.0, most=9.0)
    """
    last = len(samples) - 1
    first, quarter, half, three_quarters, end = (samples[last * part // 4] for part in range(5))
    return Course(process, first, quarter, half, three_quarters, end, max(samples))
