"""The network inside what a file makes: wrappers taken off, the first module of several, a function as a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from gradlint.error import LoadError

# Where torch.compile, DataParallel and DistributedDataParallel keep the module they wrap.
WRAPPED = ("_orig_mod", "module")


class FunctionModule(nn.Module):
    """A plain function of tensors, as a module."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: object, **kwargs: object) -> object:
        """The function's own result."""
        return self.function(*args, **kwargs)


def as_module(value: object, name: str) -> tuple[nn.Module, str]:
    """(the module in a value, a note on how it was taken out of it).

    Raises LoadError when the value holds no module.
    """
    if isinstance(value, nn.Module):
        return _network(value)
    for part in _parts(value):
        if isinstance(part, nn.Module):
            return _network(part)[0], f"{name} returns several values; the first module is linted"
    raise LoadError(f"{name} is a {type(value).__name__}, not a model", "name an nn.Module, or a call that returns one")


def holds_module(value: object) -> bool:
    """Whether `as_module` finds one."""
    return isinstance(value, nn.Module) or any(isinstance(part, nn.Module) for part in _parts(value))


def _parts(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, tuple | list) else []


def _network(model: nn.Module) -> tuple[nn.Module, str]:
    """The module without its wrappers; a Lightning module without a forward of its own stands for what it trains."""
    for attribute in WRAPPED:
        inner = getattr(model, attribute, None)
        if isinstance(inner, nn.Module) and type(model).__module__.startswith("torch."):
            return _network(inner)
    owner = getattr(type(model).forward, "__module__", "")
    if owner.startswith(("lightning", "pytorch_lightning")):
        sizes = {name: sum(p.numel() for p in child.parameters()) for name, child in model.named_children()}
        largest = max(sizes, key=lambda name: sizes[name], default="")
        if largest:
            return model.get_submodule(largest), f"it has no forward of its own; its {largest} is linted"
    return model, ""
