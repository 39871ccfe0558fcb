"""Put a checkpoint's weights into a model; nothing in the file is ever executed."""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from gradlint.error import LoadError

# Keys under which training scripts keep the state of the model, and prefixes that wrappers add to its names.
CONTAINERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "module",
    "weights",
    "params",
    "ema",
)
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.", "encoder.")
SHOWN = 3  # names quoted in an error


def put_weights(model: nn.Module, path: Path) -> str:
    """Load a checkpoint into the model and return a note on it.

    Raises LoadError when the file cannot be read without executing it, or its names or shapes are not the model's.
    """
    if any(p.is_meta for p in model.parameters()):
        raise LoadError(f"the model is too large to hold the weights of {path.name}", "raise --memory")
    state = fitting(_read(path), model)
    _check(state, model, path)
    model.load_state_dict(state, strict=True)
    return f"weights from {path.name}: {len(state)} tensors"


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise LoadError(f"no such checkpoint: {path}")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise LoadError(f"cannot read weights from {path.name}", f"a checkpoint is one of {', '.join(READERS)}")
    return _state(reader(path), path)


def _safetensors(path: Path) -> object:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise LoadError("reading .safetensors needs the safetensors package", "pip install safetensors") from None
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise LoadError(f"cannot read {path.name}: {error}") from error


def _pickled(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = (
            str(error).split("GLOBAL ")[-1].split(" was not")[0].strip()
            if "GLOBAL" in str(error)
            else "more than tensors"
        )
        hint = "save the weights alone, torch.save(model.state_dict(), path), or as .safetensors"
        raise LoadError(
            f"{path.name} refused: reading it would execute code, it holds {reason.splitlines()[0]}", hint
        ) from error
    except Exception as error:  # a damaged file makes the unpickler raise almost anything
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise LoadError(f"cannot read {path.name}: {reason}") from error


READERS: Mapping[str, Callable[[Path], object]] = {
    ".safetensors": _safetensors,
    ".pt": _pickled,
    ".pth": _pickled,
    ".bin": _pickled,
    ".ckpt": _pickled,
}


def _state(loaded: object, path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by name, taken out of the dictionary that a training script wraps around them."""
    for _ in range(3):
        if not isinstance(loaded, Mapping):
            break
        tensors = {str(k): v for k, v in loaded.items() if isinstance(v, torch.Tensor)}
        inner = next((loaded[k] for k in CONTAINERS if isinstance(loaded.get(k), Mapping)), None)
        if tensors and (inner is None or len(tensors) > 1):
            return tensors
        loaded = inner
    raise LoadError(f"{path.name} holds no named tensors", "save it with torch.save(model.state_dict(), path)")


def fitting(state: Mapping[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """The state under the model's own names: a prefix that a wrapper added (or left out) is taken off (or put on)."""
    wanted = set(model.state_dict())
    best = dict(state)
    for prefix in PREFIXES:
        stripped = {k.removeprefix(prefix): v for k, v in state.items()}
        added = {prefix + k: v for k, v in state.items()}
        for renamed in (stripped, added):
            if len(wanted & renamed.keys()) > len(wanted & best.keys()):
                best = renamed
    return best


def _check(state: Mapping[str, torch.Tensor], model: nn.Module, path: Path) -> None:
    own = model.state_dict()
    shapes = [
        (k, tuple(state[k].shape), tuple(own[k].shape)) for k in own if k in state and state[k].shape != own[k].shape
    ]
    if shapes:
        name, given, wanted = shapes[0]
        more = f" and {len(shapes) - 1} more" if len(shapes) > 1 else ""
        hint = "build the model with the arguments it was trained with: gradlint 'model.py:Net(…)' --weights …"
        raise LoadError(
            f"{path.name} does not fit: {name} is {_dims(given)} there and {_dims(wanted)} in the model{more}", hint
        )
    missing, unexpected = [k for k in own if k not in state], [k for k in state if k not in own]
    if missing or unexpected:
        raise LoadError(f"{path.name} does not fit: {_difference(missing, unexpected)}", _nearest(missing, unexpected))


def _difference(missing: list[str], unexpected: list[str]) -> str:
    parts = [f"it lacks {_quoted(missing)}"] if missing else []
    parts += [f"the model has no {_quoted(unexpected)}"] if unexpected else []
    return "; ".join(parts)


def _nearest(missing: list[str], unexpected: list[str]) -> str:
    near = difflib.get_close_matches(missing[0], unexpected, 1, 0.5) if missing and unexpected else []
    return f"the nearest name to {missing[0]} there is {near[0]}" if near else ""


def _quoted(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _dims(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a scalar"
