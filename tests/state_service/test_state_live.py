"""Background work beside a snapshot's cut: nothing is left out, nothing is done twice."""

import asyncio
import threading
from typing import Any

import pytest

from state_service.live import LiveState
from state_service.settings import Settings


class _Work:
    """A piece that takes until it is allowed to end."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.may_end = threading.Event()
        self.failure: Exception | None = None

    def run(self) -> list[int]:
        assert self.may_end.wait(20)
        if self.failure is not None:
            raise self.failure
        return [self.number]


class _Windows:
    """Runs of one event that wait to be sorted; whoever takes one must bring it back."""

    def __init__(self) -> None:
        self.pending: list[_Work] = []
        self.in_work: list[_Work] = []
        self.segments: tuple[list[int], ...] = ()
        self.frozen = 0

    @property
    def sealed(self) -> bool:
        return not (self.pending or self.in_work)

    @property
    def live_events(self) -> int:
        return len(self.pending) + len(self.in_work) + len(self.segments)

    def add(self) -> _Work:
        work = _Work(self.live_events)
        self.pending.append(work)
        return work

    def freeze(self) -> None:
        self.frozen += 1

    def next_work(self) -> _Work | None:
        if not self.pending:
            return None
        self.in_work.append(self.pending.pop(0))
        return self.in_work[-1]

    def finish(self, work: _Work, segment: list[int]) -> None:
        self.in_work.remove(work)
        self.segments += (segment,)

    def abandon(self, work: _Work) -> None:
        self.in_work.remove(work)
        self.pending.append(work)


@pytest.fixture
def state() -> LiveState:
    state = LiveState.empty(Settings())
    windows: Any = _Windows()
    state.windows = windows
    return state


async def test_a_cut_waits_for_the_piece_that_is_being_worked_on(state: LiveState) -> None:
    windows: Any = state.windows
    first, second = windows.add(), windows.add()
    settling = asyncio.create_task(state.settle())
    await asyncio.sleep(0)
    cutting = asyncio.create_task(state.seal())
    await asyncio.sleep(0.01)
    assert (len(windows.in_work), windows.frozen, cutting.done()) == (1, 1, False)
    first.may_end.set()
    second.may_end.set()
    await cutting
    assert sorted(windows.segments) == [[0], [1]]
    await settling
    assert windows.in_work == windows.pending == []


async def test_a_cut_finds_that_the_last_piece_was_done_while_it_waited(state: LiveState) -> None:
    windows: Any = state.windows
    only = windows.add()
    settling = asyncio.create_task(state.settle())
    await asyncio.sleep(0)
    cutting = asyncio.create_task(state.seal())
    await asyncio.sleep(0)
    only.may_end.set()
    await cutting
    assert windows.segments == ([0],)
    await settling


async def test_a_piece_that_fails_is_taken_back(state: LiveState) -> None:
    windows: Any = state.windows
    work = windows.add()
    work.failure = MemoryError()
    work.may_end.set()
    with pytest.raises(MemoryError):
        await state.settle()
    assert (windows.in_work, windows.pending) == ([], [work])
    work.failure = None
    await state.seal()
    assert windows.segments == ([0],)
