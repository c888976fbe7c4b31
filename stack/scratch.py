"""Folders in the system's temporary one that go with their owner, or at the next start after it.

Each holds a locked file. A lock is its holder's, and a killed process holds none: a folder whose
file can be locked is nobody's any more.
"""

import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_PREFIX = "medianserve-"
_OWNED = "owned"
# The longest name of a socket here: supervisord binds its own under this one, with its pid, first.
_SOCKET = "supervisor.sock.4194304"
_SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103  # macOS and the BSDs


@contextlib.contextmanager
def scratch_folder(purpose: str) -> Iterator[tuple[Path, IO[str]]]:
    """Make a folder with a short path; give it and the lock, which a helper may be handed too."""
    root = _temporary_root(purpose)
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


def _temporary_root(purpose: str) -> Path:
    """Return the system's temporary folder; or /tmp, where sockets and supervisor need that."""
    root = Path(tempfile.gettempdir())
    socket = root / f"{_PREFIX}{purpose}-{'x' * 8}" / _SOCKET  # as mkdtemp ends a name
    usable = len(os.fsencode(socket)) <= _SOCKET_PATH_BYTES and "%" not in str(root)
    return root if usable else Path("/tmp")  # noqa: S108 - see mkdtemp
