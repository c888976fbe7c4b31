"""The small disk is full when it is filled, and has room again when it is cleared."""

import errno
from pathlib import Path

import pytest

from chaos.disk import small_disk

MIB = 1 << 20


def test_a_filled_disk_takes_no_byte_until_it_is_cleared(tmp_path: Path) -> None:
    with small_disk(tmp_path, 4) as disk:
        if disk is None:
            pytest.skip("this user may not mount a disk")
        for name in ("first", "second"):
            disk.fill()
            with pytest.raises(OSError, match="No space left") as caught:
                (tmp_path / name).write_bytes(b"x")
            assert caught.value.errno == errno.ENOSPC
            disk.clear()
            (tmp_path / name).write_bytes(bytes(MIB))
    assert not any(tmp_path.iterdir()), "it is still mounted"
