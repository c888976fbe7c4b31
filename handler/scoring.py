"""Weights -> a model on its device; features -> scores, one forward a call."""

import importlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from handler.errors import ModelError

# Batches are padded to whole blocks of rows. Matrix kernels treat the rows left over after the
# last block differently, which shows in a score's last bit: an event would score differently
# with other neighbours, and a repeated request would not get the scores that were recorded.
_ROW_BLOCK = 16
# A batch of more rows is cut. On a CPU so that between layers they stay in a core's cache: measured
# with the default network, 10,000 rows take 4 ms in pieces of 1,024, 10 ms at once, 22 ms in
# pieces of 16. On a GPU only so that a batch of large requests stays within memory.
_MAX_ROWS_ON_CPU, _MAX_ROWS_ON_GPU = 1024, 65_536


class Scorer:
    """A network on its device, ready to score."""

    def __init__(self, network: nn.Module, features: int, device: torch.device) -> None:
        self._network = network.to(device).eval()
        self._device = device
        self._max_rows = _MAX_ROWS_ON_CPU if device.type == "cpu" else _MAX_ROWS_ON_GPU
        self._check_output_shape(features)

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Score float32 [n, features], in one forward up to 1,024 rows; return float64 [n].

        A score is the network's float32 output widened: exact, and the same number in the
        answer, in the window and in the median.
        """
        scores = np.empty(len(features), np.float64)
        for start in range(0, len(features), self._max_rows):
            part = features[start : start + self._max_rows]
            count = len(part)
            output = self._forward(_padded(part))[:count]
            scores[start : start + count] = output.cpu().numpy()
        return scores

    def _forward(self, rows: NDArray[np.float32]) -> torch.Tensor:
        with torch.inference_mode():
            output: torch.Tensor = self._network(torch.from_numpy(rows).to(self._device))
            return output.reshape(-1)

    def _check_output_shape(self, features: int) -> None:
        """Score zeros, so that a misfit is found at start and not under load."""
        try:
            output = self._forward(np.zeros((_ROW_BLOCK, features), np.float32))
        except Exception as error:  # whatever a network of somebody's own may raise
            raise ModelError(
                f"the network does not take {features} features a row: {error} "
                "(set 'features' in the model YAML)"
            ) from error
        if len(output) != _ROW_BLOCK:
            raise ModelError(
                "the network must give one score an event, "
                f"but gave {len(output)} for {_ROW_BLOCK} events"
            )


def _padded(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the rows, and zeros up to a whole block."""
    missing = -len(rows) % _ROW_BLOCK
    if not missing:
        return np.ascontiguousarray(rows)
    padded = np.zeros((len(rows) + missing, rows.shape[1]), np.float32)
    padded[: len(rows)] = rows
    return padded


def load_scorer(
    factory: str, features: int, weights_path: Path, gpu_id: int | None = None
) -> Scorer:
    """Build the network named `module:callable`, load its state_dict, move it to its device.

    `gpu_id` is the GPU that TorchServe assigned to this worker, None for the CPU.
    """
    try:
        network = _find_factory(factory)(features)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"factory '{factory}' failed: {error}") from error
    state_dict = _load_state_dict(weights_path)
    try:
        network.load_state_dict(state_dict)
    except RuntimeError as error:
        raise ModelError(
            f"{weights_path.name} does not fit the network that {factory} builds: {error}"
        ) from error
    use_gpu = gpu_id is not None and gpu_id >= 0 and torch.cuda.is_available()
    return Scorer(network, features, torch.device(f"cuda:{gpu_id}" if use_gpu else "cpu"))


def _find_factory(factory: str) -> Callable[[int], nn.Module]:
    module_name, _, attribute = factory.partition(":")
    try:
        found: Callable[[int], nn.Module] = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(
            f"factory '{factory}' not found: {error} "
            "(write it as module:callable, and put the module into the archive: make "
            "INCLUDE=my_network.py)"
        ) from error
    return found


def _load_state_dict(path: Path) -> dict[str, Any]:
    """Load tensors only: `weights_only` refuses a pickle that could run code."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"weights file {path} not found") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ModelError(
            f"{path.name} is not a state_dict: it is damaged, or holds more than tensors "
            "(write one with torch.save(network.state_dict(), …))"
        ) from error
    if not isinstance(loaded, dict):
        raise ModelError(f"{path.name} holds {type(loaded).__name__}, expected a state_dict")
    return loaded
