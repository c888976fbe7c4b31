"""Compressed bodies -> what was compressed, never more than a limit. Pure.

Arrow's own codecs do it: they read as much as they are asked for, so that what unpacks to gigabytes
costs no more than the limit, and they tell of a body that was cut short.
"""

from types import MappingProxyType

import pyarrow as pa

from handler.errors import RequestError

# What a header Content-Encoding may say -> Arrow's name. Its "gzip" reads zlib's format too, which
# is what HTTP calls deflate.
_CODECS = MappingProxyType(
    {"gzip": "gzip", "x-gzip": "gzip", "deflate": "gzip", "zstd": "zstd", "br": "brotli"}
)
# No body that is served begins so: these are unpacked without a header that says it.
_MAGICS = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"))
_MAGIC_STARTS = frozenset(magic[0] for magic, _ in _MAGICS)


def encoding_of(header: str | None, body: bytes) -> str | None:
    """Return how a body is packed, None when it is not, by the header or its first bytes.

    Raises `RequestError` 400 for an encoding that cannot be taken.
    """
    encoding = header.strip().lower() if header else ""
    if encoding in _CODECS:
        return encoding
    if encoding not in {"", "identity"}:
        raise RequestError(
            400,
            "unsupported_content_encoding",
            f"Content-Encoding {encoding[:100]!a}: send gzip, zstd, br or deflate, or the body as "
            "it is, without the header",
        )
    if body[0] in _MAGIC_STARTS:
        for magic, name in _MAGICS:
            if body.startswith(magic):
                return name
    return None


def unpack(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Unpack a body. Raises `RequestError`: 400 when it cannot be, 413 beyond `max_bytes`."""
    try:
        with pa.CompressedInputStream(pa.BufferReader(body), _CODECS[encoding]) as stream:
            unpacked: bytes = stream.read(max_bytes + 1)
    except (pa.ArrowException, OSError) as error:
        raise RequestError(
            400, "not_unpacked", f"the body is not {encoding}, or not whole: {str(error)[:200]!a}"
        ) from None
    if len(unpacked) > max_bytes:
        raise RequestError(
            413,
            "body_too_large",
            f"the body unpacks to more than {max_bytes} bytes, the limit: send several",
        )
    if not unpacked:
        raise RequestError(400, "not_unpacked", f"the body unpacks to nothing: is it {encoding}?")
    return unpacked
