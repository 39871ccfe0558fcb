"""Stay within a memory budget: take the batch in parts, and move what the backward pass needs out of the way."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gradlint.probe.agreement import split

FEW = 2  # samples of the trial run, and of the smallest part: norms over the batch need more than one
SHARE = 0.7  # of what is left of the budget that saved tensors may take: kernels need room as well
LARGE = 1 << 16  # bytes from which a saved tensor is moved out
COPIES = 2  # of every parameter: the measured copy and its gradient
RECORDED = 1.5  # bytes of a recorded pass, which holds every output, over those that autograd saves
RESERVE = 1 << 28  # bytes that kernels, their workspaces and what is still to be imported take (found on a CPU)


@dataclass(frozen=True)
class Fit:
    """How one pass fits: the parts that the batch is taken in, and whether saved tensors are moved out of the way."""

    parts: int = 1
    spill: bool = False
    note: str = ""


def fit(model: nn.Module, batch: tuple[Any, Any, Any], forward: Any, budget: int, held: int) -> Fit:
    """How a forward and backward of the batch stay within `budget` bytes, of which `held` are taken already.

    What a sample costs is counted on a run of a few. The parts are the fewest that fit; where not even the smallest
    does, what autograd saves is moved out, too. `forward(args, kwargs)` runs the model.
    """
    few = next(iter(split(batch, most=1 << 30, least=FEW)), batch)
    size = _samples(batch)
    own = sum(param.numel() * param.element_size() for param in model.parameters())
    left = SHARE * (budget - held - COPIES * own - RESERVE) / RECORDED
    try:
        each, least = saved_bytes(model, few, forward) / max(1, _samples(few)), FEW
    except Exception:  # noqa: BLE001  a batch size that the model holds to, as exported ones do: the whole tells
        each, least = saved_bytes(model, batch, forward) / max(1, size), size
    if each * size <= left:
        return Fit()
    most = max(least, int(left // each)) if left > 0 else least
    parts = max(1, min(-(-size // most), size // least))
    spill = each * (-(-size // parts)) > left
    ways = [f"the batch of {size} is taken in {parts} parts"] if parts > 1 else []
    ways += [f"what the backward pass needs is kept {'on disk' if _on_cpu(model) else 'in host memory'}"] * spill
    return Fit(parts, spill, f"to stay within {budget / 2**30:.3g} GiB {' and '.join(ways)}" if ways else "")


def saved_bytes(model: nn.Module, batch: tuple[Any, Any, Any], forward: Any) -> int:
    """Bytes that autograd keeps of one forward pass for the backward pass, parameters aside."""
    known = {param.untyped_storage().data_ptr() for param in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            size = min(storage.nbytes(), tensor.numel() * tensor.element_size())  # a view, or one that is expanded
            kept[storage.data_ptr()] = max(size, kept.get(storage.data_ptr(), 0))
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = forward(batch[0], batch[1])
    del output
    return sum(kept.values())


@contextlib.contextmanager
def spilled(*, active: bool = True) -> Iterator[None]:
    """Move what autograd saves out of memory until it is asked for: to a folder, or from a GPU to the host.

    The folder is removed after the block, which must hold the backward pass as well.
    """
    if not active:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="gradlint-") as folder:
        count = 0

        def pack(tensor: Tensor) -> Tensor | tuple[torch.device, Tensor | Path]:
            nonlocal count
            if tensor.numel() * tensor.element_size() < LARGE or isinstance(tensor, nn.Parameter):
                return tensor
            if tensor.device.type != "cpu":
                return tensor.device, tensor.detach().cpu()
            count += 1
            path = Path(folder, f"{count}.pt")
            torch.save(tensor.detach().clone(), path)  # a view would take the whole storage along
            return tensor.device, path

        def unpack(packed: Tensor | tuple[torch.device, Tensor | Path]) -> Tensor:
            if isinstance(packed, Tensor):
                return packed
            device, held = packed
            return held.to(device) if isinstance(held, Tensor) else torch.load(held)

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            yield


def resident() -> int:
    """Bytes of memory that this process holds; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * 4096


def _samples(batch: tuple[Any, Any, Any]) -> int:
    return next((tensor.shape[0] for tensor in _tensors(batch) if tensor.ndim), 1)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from (tensor for item in value.values() for tensor in _tensors(item))
    elif isinstance(value, (list, tuple)):
        yield from (tensor for item in value for tensor in _tensors(item))


def _on_cpu(model: nn.Module) -> bool:
    return all(param.device.type == "cpu" for param in model.parameters())
