"""Bodies, compressed in every way that is taken. Pure."""

import gzip
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from types import MappingProxyType

import pyarrow as pa


def _packer(codec: str) -> Callable[[bytes], bytes]:
    def pack(body: bytes) -> bytes:
        packed: bytes = pa.compress(body, codec, asbytes=True)
        return packed

    return pack


# By their names in Content-Encoding.
PACKERS: Mapping[str, Callable[[bytes], bytes]] = MappingProxyType(
    {
        "gzip": partial(gzip.compress, mtime=0),  # always the same
        "deflate": zlib.compress,
        "zstd": _packer("zstd"),
        "br": _packer("brotli"),
    }
)


def packed(body: bytes, random: Random) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    """Compress a body; return it with its header, or now and then with another one or none."""
    encoding = random.choice(tuple(PACKERS))
    said = encoding if random.random() < 0.7 else random.choice((*PACKERS, ""))
    return PACKERS[encoding](body), (("Content-Encoding", said),)
