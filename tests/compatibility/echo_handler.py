"""The model of the plain TorchServe: answers what reached it. Packed into an archive."""

from typing import Any


def _readable(part: Any) -> Any:
    return bytes(part).decode() if isinstance(part, bytes | bytearray) else part


def handle(data: list[dict[str, Any]] | None, context: Any) -> list[dict[str, Any]] | None:
    if data is None:
        return None
    return [{name: _readable(part) for name, part in item.items()} for item in data]
