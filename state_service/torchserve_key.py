"""TorchServe's own key, which it makes anew at every start and keeps in a file."""

from pathlib import Path

import msgspec


class _Key(msgspec.Struct):
    key: str


class _Keys(msgspec.Struct):
    inference: _Key


_decode = msgspec.json.Decoder(_Keys).decode


class KeyFile:
    """A `key_file.json`, read again whenever it has changed. No file: there is no key."""

    def __init__(self, path: str | None) -> None:
        self._path = Path(path) if path else None
        self._read_as: tuple[int, int, int] | None = None
        self._key: str | None = None

    def inference_key(self) -> str | None:
        """Return the key that opens predictions; None where TorchServe has written none."""
        if self._path is None:
            return None
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen != self._read_as:
                self._key = _decode(self._path.read_bytes()).inference.key
                self._read_as = seen
        except (OSError, msgspec.MsgspecError):  # the latter while it is being written
            self._key = self._read_as = None
        return self._key
