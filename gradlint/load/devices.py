"""Models that ask for an accelerator run on the CPU when there is none, or when none is wanted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from gradlint.load.environment import patched

ACCELERATORS = ("cuda", "mps", "xpu", "hpu", "npu")

# Functions of torch.cuda that user code calls in passing, and what they answer without a GPU.
QUIET: Mapping[str, object] = {
    "set_device": None,
    "synchronize": None,
    "empty_cache": None,
    "current_device": 0,
    "get_device_name": "cpu",
    "manual_seed": None,
    "manual_seed_all": None,
}

# torch.cuda.FloatTensor and its like.
TYPES = ("FloatTensor", "DoubleTensor", "HalfTensor", "LongTensor", "IntTensor", "ByteTensor", "BoolTensor")


class OnCpu(TorchFunctionMode):
    """Turns `.cuda()`, `.to("cuda")` and `device="cuda"` into the CPU; `moved` says whether anything asked."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = False

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the call with every accelerator among its arguments replaced by the CPU."""
        kwargs = kwargs or {}
        if func is torch.device:
            return func(*args, **kwargs)  # only naming a device asks for nothing
        if func in (torch.Tensor.cuda, torch.Tensor.pin_memory):
            self.moved = True
            return args[0]
        return func(*(self._cpu(a) for a in args), **{k: self._cpu(v) for k, v in kwargs.items()})

    def set_default_device(self, original: Callable[[Any], None]) -> Callable[[Any], None]:
        """torch.set_default_device, which is no torch function."""
        return lambda device: original(self._cpu(device))

    def _cpu(self, value: Any) -> Any:
        if isinstance(value, torch.device) and value.type in ACCELERATORS:
            self.moved = True
            return torch.device("cpu")
        if isinstance(value, str) and value.split(":")[0] in ACCELERATORS:
            self.moved = True
            return "cpu"
        return value


@contextlib.contextmanager
def on_cpu() -> Iterator[OnCpu]:
    """Inside, nothing reaches an accelerator and asking for one is no error."""
    with contextlib.ExitStack() as stack:
        for name in QUIET:
            stack.enter_context(patched(torch.cuda, name, _answering(QUIET[name])))
        for name in TYPES:
            stack.enter_context(patched(torch.cuda, name, getattr(torch, name)))
        mode = OnCpu()
        stack.enter_context(patched(torch, "set_default_device", mode.set_default_device(torch.set_default_device)))
        yield stack.enter_context(mode)


def _answering(answer: object) -> Callable[..., object]:
    return lambda *args, **kwargs: answer


def wants_accelerator(device: str) -> bool:
    """Whether a `--device` value leads to an accelerator on this machine."""
    return device != "cpu" and (torch.cuda.is_available() or device not in ("auto", ""))
