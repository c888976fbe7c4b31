"""Stand-in for the engine's background work; replaced by its own file of this name."""

from dataclasses import dataclass

from state_service.segment import Segment


@dataclass(frozen=True, slots=True)
class Work:
    """Nothing yet: the memtable is sealed at once."""

    def run(self) -> Segment:
        """Return the sorted segment."""
        raise NotImplementedError
