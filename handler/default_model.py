"""The default model in a store of its own: `python -m handler.default_model`.

For what must never touch the user's `model_store/`: tests, the demo, chaos, fuzzing, benchmarks,
pictures. It is made once and shared.
"""

import fcntl
import subprocess
import sys
from pathlib import Path

from handler.archive import MODEL_NAME, pack
from handler.packing import DEFAULT_CONFIG, DEFAULT_WEIGHTS, PACKAGE, Inputs, is_current

# Installed from a wheel there is no clone, and what lies beside the package is not ours.
_CLONE = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else Path.cwd()
_STORE = _CLONE / "build" / "default-model"


def default_store() -> Path:
    """Return a model store with the default model, `scorer.mar`; made when missing or stale."""
    _STORE.mkdir(parents=True, exist_ok=True)
    with (_STORE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # others may want it at this moment
        weights = _STORE / DEFAULT_WEIGHTS.name
        if not weights.exists():
            _create(weights)
        archive, inputs = _STORE / f"{MODEL_NAME}.mar", Inputs(weights, DEFAULT_CONFIG)
        if not is_current(archive, inputs):
            _create(weights)  # the same bytes, unless the network has changed
            pack(archive, inputs)
    return _STORE


def default_weights() -> Path:
    """Return that model's weights."""
    return default_store() / DEFAULT_WEIGHTS.name


def _create(weights: Path) -> None:
    """Write them, in a process of its own: torch is not needed where they are there."""
    subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "handler.create_model", "--output", str(weights)],
        cwd=PACKAGE.parent, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


if __name__ == "__main__":
    print(default_store())
