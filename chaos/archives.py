"""The model store of a run: the model in two versions, so that one can replace the other."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from chaos.book import FEATURES, Score
from handler.archive import MODEL_NAME, build_archive
from handler.default_model import default_weights
from handler.scoring import load_scorer

_FACTORY = "handler.network:build"
FIRST, SECOND = "1.0", "2.0"
ARCHIVES = {FIRST: f"{MODEL_NAME}.mar", SECOND: f"{MODEL_NAME}-{SECOND}.mar"}


def build_store(folder: Path) -> None:
    """Pack the default model into `folder`, once for each version; their scores are the same."""
    for version, name in ARCHIVES.items():
        build_archive(folder / name, default_weights(), version=version)


def model() -> Score:
    """Return the default model itself: float32 (n, 3) -> float64 (n,)."""
    scorer = load_scorer(_FACTORY, FEATURES, default_weights())
    threads = torch.get_num_threads()

    def score(features: NDArray[np.float32]) -> NDArray[np.float64]:
        torch.set_num_threads(1)  # this is not what is measured; leave the cores to the stack
        try:
            return scorer.score(features)
        finally:
            torch.set_num_threads(threads)

    return score
