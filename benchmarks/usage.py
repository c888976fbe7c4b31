"""What a tree of processes uses: CPU time by role, and the most memory it held."""

import contextlib
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Self

import psutil

_SAMPLE_SECONDS = 0.2
_MIB = 1024 * 1024

# The first of these that is found in a command line names the process's role.
_ROLES = (
    ("model_service_worker", "workers"),
    ("org.pytorch.serve.ModelServer", "JVM"),
    ("state_service", "state service"),
    ("benchmarks.peers", "server"),
)
OTHER_ROLE = "supervision"


def role_of(command_line: list[str]) -> str:
    """Say what a process does in its contender."""
    for mark, role in _ROLES:
        if any(mark in argument for argument in command_line):
            return role
    return OTHER_ROLE


class Usage:
    """Watch a process and its descendants inside a `with` block.

    Afterwards `cpu_seconds` has user and system time by role, and `peak_mib` the largest sum of
    resident sizes seen at one of five moments a second. Pages that processes share count in each.
    """

    def __init__(self, root_pid: int) -> None:
        self._root = psutil.Process(root_pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.cpu_seconds: dict[str, float] = {}
        self.peak_mib = 0.0

    def __enter__(self) -> Self:
        self._before = {process.pid: seconds for process, _, seconds in self._cpu_times()}
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        spent: defaultdict[str, float] = defaultdict(float)
        for process, role, seconds in self._cpu_times():
            spent[role] += seconds - self._before.get(process.pid, 0.0)
        self.cpu_seconds = dict(spent)

    def _family(self) -> list[psutil.Process]:
        return [self._root, *self._root.children(recursive=True)]

    def _cpu_times(self) -> Iterator[tuple[psutil.Process, str, float]]:
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                yield process, role_of(process.cmdline()), times.user + times.system

    def _sample(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            while True:
                total = 0
                for process in self._family():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        total += process.memory_info().rss
                self.peak_mib = max(self.peak_mib, total / _MIB)
                if self._stop.wait(_SAMPLE_SECONDS):
                    return


def per_million(cpu_seconds: Mapping[str, float], events: int) -> dict[str, float]:
    """Return CPU seconds per million events, by role; nothing when there were none."""
    if not events:
        return {}
    return {role: seconds / events * 1e6 for role, seconds in cpu_seconds.items()}
