"""Folders in the system's temporary one that go with their owner, or at the next start after it.

Each holds a locked file. A lock is its holder's, and a killed process holds none: a folder whose
file can be locked is nobody's any more.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_PREFIX = "medianserve-"
_OWNED = "owned"
# What a socket's path may have beyond the folder: TorchServe's are named .ts.sock.9000
_LONGEST = 70


@contextlib.contextmanager
def scratch_folder(purpose: str) -> Iterator[tuple[Path, IO[str]]]:
    """Make a folder with a short path; give it and the lock, which a helper may be handed too."""
    root = _temporary_root()
    remove_abandoned(root)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{purpose}-", dir=root))
    try:
        with (folder / f"{_OWNED}.new").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            Path(lock.name).rename(folder / _OWNED)  # under its name it is always locked
            yield folder, lock
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(root: Path) -> None:
    """Remove this account's folders whose owners were killed."""
    for folder in root.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / _OWNED).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)


def _temporary_root() -> Path:
    """Return the system's temporary folder; or /tmp, where sockets and supervisor need that."""
    root = Path(tempfile.gettempdir())
    usable = len(os.fsencode(root)) <= _LONGEST and "%" not in str(root)
    return root if usable else Path("/tmp")  # noqa: S108 - see mkdtemp
