"""Weights -> a model on its device; features -> scores, one forward a call."""

import contextlib
import importlib
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from handler.errors import ModelError
from handler.weights import listed, load_weights, shapes_in

# Batches are padded to whole blocks of rows. Matrix kernels treat the rows left over after the
# last block differently, which shows in a score's last bit: an event would score differently
# with other neighbours, and a repeated request would not get the scores that were recorded.
_ROW_BLOCK = 16
# A batch of more rows is cut. On a CPU so that between layers they stay in a core's cache: measured
# with the default network, 10,000 rows take 4 ms in pieces of 1,024, 10 ms at once, 22 ms in
# pieces of 16. On a GPU only so that a batch of large requests stays within memory.
_MAX_ROWS_ON_CPU, _MAX_ROWS_ON_GPU = 1024, 65_536

Factory = Callable[[int], nn.Module]


class Scorer:
    """A network on its device, ready to score."""

    def __init__(self, network: nn.Module, features: int, device: torch.device) -> None:
        # Features and scores are float32, so the network is as well.
        self._network = network.to(device).float().eval()
        self._device = device
        self._max_rows = _MAX_ROWS_ON_CPU if device.type == "cpu" else _MAX_ROWS_ON_GPU
        self._check(features)

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

    def _check(self, features: int) -> None:
        """Score some rows, so that a misfit is found at start and not under load.

        Numbers from 0 to below 1: a network that takes some of them for indices has an index 0.
        """
        rows = np.random.default_rng(0).random((_ROW_BLOCK, features), np.float32)
        try:
            with torch.inference_mode():
                output = self._network(torch.from_numpy(rows).to(self._device))
        except Exception as error:  # whatever a network of somebody's own may raise
            raise ModelError(
                f"the network does not take {features} features a row: {error} "
                "(set 'features' in the model YAML)"
            ) from error
        _check_output(output)
        before = self.score(rows)
        if not np.isfinite(before).any():
            raise ModelError(_no_score_finite(self._network))
        if not _alike(self.score(rows), before):
            raise ModelError(
                "the network scores the same event differently each time: does it draw random "
                "numbers? Use nn.Dropout, which eval() switches off, not functional.dropout"
            )
        rows[1:] += 0.5
        if not _alike(self.score(rows)[:1], before[:1]):
            raise ModelError(
                "an event's score depends on the other events of its batch: look for a softmax or "
                "a mean over dim 0, and for BatchNorm with track_running_stats=False"
            )


def _check_output(output: object) -> None:
    """Raise `ModelError` when a block of events has not got as many scores."""
    if not isinstance(output, torch.Tensor):
        raise ModelError(
            f"the network must return a tensor of one score an event, not {type(output).__name__}: "
            "let its forward return that alone"
        )
    if output.numel() == _ROW_BLOCK and not output.is_complex():
        return
    shape = list(output.shape)
    several = len(shape) == 2 and shape[0] == _ROW_BLOCK
    raise ModelError(
        f"the network must give one score an event, but gave {output.dtype} of shape {shape} for "
        f"{_ROW_BLOCK} events: "
        + (
            f"let its forward return one of the {shape[1]} columns, such as the probability of "
            "class 1: return outputs.softmax(dim=1)[:, 1]"
            if several
            else "let its forward return one number for each row"
        )
    )


def _no_score_finite(network: nn.Module) -> str:
    values = chain(network.named_parameters(), network.named_buffers())
    broken = [name for name, value in values if not value.isfinite().all()]
    where = f" ({listed(broken)})" if broken else ""
    return (
        "the network gives no event a finite score: look for NaN and infinity in its weights and "
        f"buffers{where}, and for a division by 0; if the training has diverged, save an earlier "
        "state"
    )


def _alike(scores: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    """Tell whether scores differ by no more than the order of a sum makes them."""
    return bool(np.allclose(scores, others, rtol=1e-3, atol=1e-6, equal_nan=True))


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

    `gpu_id` is the GPU that TorchServe assigned to this worker, None for the CPU. Raises
    `ModelError`.
    """
    build = _find_factory(factory)
    network = _build(build, factory, features)
    try:
        load_weights(network, weights_path, factory)
    except ModelError as error:
        if other := _fitting_features(build, features, network, weights_path):
            raise ModelError(
                f"{weights_path.name} does not fit the network that {factory} builds for "
                f"{features} features, but the one for {other}: write 'features: {other}', or "
                f"{other} names, into the model YAML"
            ) from error
        raise
    use_gpu = gpu_id is not None and gpu_id >= 0 and torch.cuda.is_available()
    return Scorer(network, features, torch.device(f"cuda:{gpu_id}" if use_gpu else "cpu"))


def _build(build: Factory, factory: str, features: int) -> nn.Module:
    try:
        network = build(features)
    except Exception as error:  # whatever somebody's own code may raise
        raise ModelError(
            f"factory '{factory}' failed: {_named(error)} (it is called with the number of "
            f"features, {features}, alone)"
        ) from error
    if not isinstance(network, nn.Module):
        raise ModelError(
            f"factory '{factory}' returned {type(network).__name__}, not a torch.nn.Module: "
            "does it end with 'return network'?"
        )
    return network


def _fitting_features(
    build: Factory, features: int, network: nn.Module, weights_path: Path
) -> int | None:
    """Return the number of features with which the factory's network would fit the weights."""
    shapes = shapes_in(weights_path)
    wanted = {
        shapes[name][-1]
        for name, value in network.state_dict().items()
        if value.ndim and value.shape[-1] == features and len(shapes.get(name, ())) == value.ndim
    } - {features}
    for other in sorted(wanted):
        with contextlib.suppress(Exception):  # it was only a guess
            load_weights(build(other), weights_path, "")
            return other
    return None


def _find_factory(factory: str) -> Factory:
    module_name, _, attribute = factory.partition(":")
    if not (module_name and attribute):
        raise ModelError(
            f"factory '{factory}' is not of the form module:callable, such as my_network:build"
        )
    try:
        found: Factory = getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        missing = str(error.name)
        raise ModelError(
            f"factory '{factory}' not found: there is no module {missing}. Put it into the "
            f"archive (make model INCLUDE='… {missing.partition('.')[0]}.py'), or install it "
            "into .venv"
        ) from error
    except AttributeError as error:
        raise ModelError(
            f"factory '{factory}' not found: {error}; write it as module:callable"
        ) from error
    except Exception as error:  # whatever somebody's own module may raise
        raise ModelError(f"importing '{module_name}' failed: {_named(error)}") from error
    return found


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
