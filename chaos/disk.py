"""A disk that can be filled: a small tmpfs, where this user may mount one."""

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

_BALLAST = "ballast"
_PIECE_BYTES = 4096
_WRITTEN_BYTES = 1 << 20  # the last of it: others take and give back room meanwhile


class SmallDisk:
    """A file system of its own at `folder`."""

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / _BALLAST

    def fill(self) -> None:
        """Leave not a piece of 4 KiB; take also what others have given back since the last time."""
        with self._ballast.open("ab", buffering=0) as file:
            disk = os.fstatvfs(file.fileno())
            reserved = disk.f_bavail * disk.f_frsize - _WRITTEN_BYTES
            try:
                if reserved > 0:  # at once, not written: a second of a busy core
                    os.posix_fallocate(file.fileno(), file.tell(), reserved)
                while True:
                    file.write(bytes(_PIECE_BYTES))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def clear(self) -> None:
        """Give back what was taken."""
        self._ballast.unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(folder: Path, size_mib: int) -> Iterator[SmallDisk | None]:
    """Mount a tmpfs there until the block ends; None where that is not allowed."""
    options = f"size={size_mib}m,mode=0700"
    try:
        mounted = subprocess.run(  # noqa: S603 - the system's own tool, arguments of our own
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],  # noqa: S607
            capture_output=True,
            check=False,
        )
    except OSError:  # no such tool here
        mounted = None
    if mounted is None or mounted.returncode:
        yield None
        return
    try:
        yield SmallDisk(folder)
    finally:
        # Lazily: somebody's shell may stand in it.
        subprocess.run(["umount", "--lazy", str(folder)], check=False)  # noqa: S603, S607
