"""What people save as weights -> a network that has them, or a sentence that says what to type.

Only tensors are loaded (`weights_only=True`): a pickle that could run code is refused unrun. A
state_dict may lie in a checkpoint, beside an optimizer's, and its names may have a prefix that a
wrapper has left (`module.` of DataParallel, `_orig_mod.` of a compiled network). It is taken where
just one reading has the network's own names.
"""

import pickle
import re
import shlex
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from handler.errors import ModelError

StateDict = Mapping[str, torch.Tensor]

_EXTRA = "_extra_state"  # what a module may keep besides tensors, as PyTorch names it
_MAX_NAMED = 10


def load_weights(network: nn.Module, path: Path, builder: str) -> None:
    """Load the file into the network that `builder` has built. Raises `ModelError`."""
    readings = _readings(_load(path), path)
    names = set(network.state_dict())
    fitting = {
        label: stripped
        for label, state in readings.items()
        if (stripped := _without_prefix(state, names)) is not None
    }
    if len(fitting) > 1:
        raise ModelError(
            f"{path.name} holds several state_dicts that fit ({listed(fitting)}): save the one "
            f"that you mean: {_command(path, _inside(path, next(iter(fitting))))}"
        )
    if not fitting and len(readings) > 1:
        raise ModelError(
            f"{path.name} holds several state_dicts ({listed(readings)}), of which none fits the "
            f"network that {builder} builds: save the one that you mean: "
            f"{_command(path, _inside(path, next(iter(readings))))}"
        )
    (state,) = (fitting or readings).values()
    try:
        network.load_state_dict(dict(state))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path.name} does not fit the network that {builder} builds: {error}"
        ) from error
    if broken := [name for name, value in network.named_parameters() if value.isnan().any()]:
        raise ModelError(
            f"{path.name} holds NaN ({listed(broken)}), and so would every score be: "
            "the training has diverged; save an earlier state"
        )


def shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes in a file that holds one state_dict; of another one, nothing."""
    readings = list(_readings(_load(path), path).values())
    if len(readings) != 1:
        return {}
    return {name: tuple(value.shape) for name, value in readings[0].items()}


def _without_prefix(state: StateDict, names: set[str]) -> StateDict | None:
    """Return the state under the network's own names, if a common prefix is all that differs."""
    for prefix in _common_prefixes(state):
        if {name.removeprefix(prefix) for name in state} == names:
            return {name.removeprefix(prefix): value for name, value in state.items()}
    return None


def _common_prefixes(state: StateDict) -> Iterator[str]:
    yield ""
    parts = next(iter(state)).split(".")
    for count in range(1, len(parts)):
        prefix = ".".join(parts[:count]) + "."
        if not all(name.startswith(prefix) for name in state):
            return
        yield prefix


def _readings(loaded: object, path: Path) -> dict[str, StateDict]:
    """Return the state_dicts in what was loaded, by where they stand: "" is the whole of it."""
    if not isinstance(loaded, dict):
        raise ModelError(
            f"{path.name} holds {type(loaded).__name__}, expected a state_dict: save one with "
            "torch.save(network.state_dict(), …)"
        )
    if _is_state_dict(loaded):
        return {"": loaded}
    found = {str(key): value for key, value in loaded.items() if _is_state_dict(value)}
    if not found:
        raise ModelError(
            f"{path.name} holds no state_dict, but {listed(map(str, loaded)) or 'nothing'}: save "
            "one with torch.save(network.state_dict(), …)"
        )
    return found


def _is_state_dict(value: object) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(name, str) for name in value)
        and all(
            isinstance(part, torch.Tensor) or name.endswith(_EXTRA) for name, part in value.items()
        )
    )


def _load(path: Path) -> object:
    _refuse_other_formats(path)
    try:
        loaded: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        unknown = re.search(r"GLOBAL (\S+)", str(error))
        if unknown is None:
            raise ModelError(_damaged(path)) from None
        raise ModelError(
            f"{path.name} is not a state_dict: it holds more than tensors ({unknown.group(1)}), "
            "and reading that can run code. If you trust the file: "
            + _command(
                path,
                f"m.state_dict() if hasattr(m := torch.load({str(path)!r}, map_location='cpu', "
                "weights_only=False), 'state_dict') else m['state_dict']",
            )
        ) from None
    except (RuntimeError, EOFError, ValueError, OSError):
        raise ModelError(_damaged(path)) from None
    return loaded


def _refuse_other_formats(path: Path) -> None:
    """Name the formats that are not PyTorch's own, and how to convert them."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except FileNotFoundError as error:
        raise ModelError(f"weights file {path} not found") from error
    if head[8:] == b"{":  # the length of a JSON head, and the head
        raise ModelError(
            f"{path.name} is a safetensors file: .venv/bin/python -m pip install safetensors, and "
            + _command(path, f"load_file({str(path)!r})", "from safetensors.torch import load_file")
        )
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            is_script = any(name.endswith("/constants.pkl") for name in packed.namelist())
        if is_script:
            raise ModelError(
                f"{path.name} is a TorchScript program, not a state_dict. Its weights, for a "
                "factory that builds the same network: "
                + _command(path, f"torch.jit.load({str(path)!r}, map_location='cpu').state_dict()")
            )


def _damaged(path: Path) -> str:
    return (
        f"{path.name} is not a state_dict: it is damaged, or no file of PyTorch's "
        "(write one with torch.save(network.state_dict(), …))"
    )


def _inside(path: Path, key: str) -> str:
    return f"torch.load({str(path)!r}, map_location='cpu', weights_only=True)[{key!r}]"


def _command(path: Path, expression: str, imports: str = "") -> str:
    """Return the command that saves what an expression gives as weights of their own."""
    saved = f"{path.with_suffix('')}_weights.pt"
    code = "; ".join(
        filter(None, ["import torch", imports, f"torch.save({expression}, {saved!r})"])
    )
    return f".venv/bin/python -c {shlex.quote(code)}"


def listed(names: Iterable[str]) -> str:
    """Return the first few names, for a message."""
    shown = list(names)[: _MAX_NAMED + 1]
    return ", ".join(shown[:_MAX_NAMED]) + (", …" if len(shown) > _MAX_NAMED else "")
