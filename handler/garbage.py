"""When Python looks for cyclic garbage in a worker: not among what was loaded, not while decoding.

The collector stays on otherwise. Answered requests leave no cycles, but a failed call to the state
service does, and its exception's frames hold the batch that was being sent.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


def leave_loaded_alone() -> None:
    """Call once everything is loaded: torch is 150,000 objects to look through for nothing."""
    gc.collect()
    gc.freeze()


@contextmanager
def collector_paused() -> Iterator[None]:
    """Do without collections inside this block, which must make no cycles worth freeing.

    Decoding 10,000 events makes 10,000 tuples that live for a few milliseconds: enough for eleven
    collections, which find nothing and take as long as the decoding.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
