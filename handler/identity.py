"""Which model it is: what tells one from another, in a few words."""

import hashlib
from pathlib import Path
from typing import IO

import msgspec

from handler.settings import HandlerSettings

HASH_DIGITS = 12
_CHUNK_BYTES = 1 << 20


class ModelIdentity(msgspec.Struct, frozen=True, omit_defaults=True):
    """One model: TorchServe's name and version of it, and what was packed under them.

    `features` counts an event's numbers, `feature_names` has their names where the model YAML
    has them; `weights_sha256` is the beginning of what `sha256sum` says of the file `weights`.
    """

    name: str
    version: str
    features: int
    weights: str
    weights_sha256: str
    feature_names: tuple[str, ...] = ()

    def in_brief(self) -> "ModelIdentity":
        """Return it without the features' names, which may be many, to travel with scores."""
        return msgspec.structs.replace(self, feature_names=())

    def __str__(self) -> str:
        """Return it as a line for people."""
        noun = "feature" if self.features == 1 else "features"
        return (
            f"{self.name} {self.version}, {self.features} {noun}, "
            f"{self.weights} (sha256 {self.weights_sha256})"
        )


def identity(
    name: str, version: str, settings: HandlerSettings, weights: IO[bytes]
) -> ModelIdentity:
    """Return a model's identity; its weights are read to the end."""
    digest = hashlib.sha256()
    while chunk := weights.read(_CHUNK_BYTES):
        digest.update(chunk)
    return ModelIdentity(
        name=name,
        version=version,
        features=settings.feature_count,
        weights=Path(settings.weights).name,
        weights_sha256=digest.hexdigest()[:HASH_DIGITS],
        feature_names=settings.feature_names,
    )
