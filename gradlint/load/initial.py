"""What a model on meta would have been initialised to: initialising calls are repeated on points of a distribution."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

POINTS = 2048  # of equal probability, in an order that says nothing of their size
ATTRIBUTE = "_gradlint_initial"  # kept in the module's own dict, so that copies keep it

# Functions of every entry by itself, with or without underscores, that are simply applied to the points.
ELEMENTWISE = frozenset(
    """
    add sub mul div truediv rsub neg abs exp log sqrt rsqrt pow erfinv erf clamp clip clamp_min clamp_max
    tanh sigmoid sin cos expm1 log1p log2 log10 square reciprocal sign floor round ceil fill zero iadd isub
    imul itruediv radd rmul rtruediv rpow maximum minimum softplus float double half bfloat16 to type
    type_as clone contiguous atanh logit exp2 true_divide multiply divide subtract fmod remainder nan_to_num
    """.split()  # noqa: SIM905
)
# The same entries in another order or number.
MOVED = frozenset(
    """
    transpose permute reshape repeat expand tile repeat_interleave t flip roll view flatten unfold movedim
    swapaxes rot90 expand_as reshape_as view_as
    """.split()  # noqa: SIM905
)
DRAWN = frozenset({"exponential_", "log_normal_", "cauchy_", "geometric_", "bernoulli_", "random_"})


@dataclass(frozen=True)
class Initial:
    """The distribution that a parameter's entries are drawn from."""

    mean: float
    std: float
    rms: float
    abs_max: float
    zero_share: float
    entries: Tensor | None = None  # of a vector: as they might have been drawn, each part from its own distribution


def initial_of(module: nn.Module | None, name: str) -> Initial | None:
    """The distribution of one of a module's own parameters, where it was noted while the model was built on meta."""
    noted = {} if module is None else module.__dict__.get(ATTRIBUTE, {})
    found = noted.get(name)
    return found if isinstance(found, Initial) else None


@contextmanager
def noting() -> Iterator[Callable[[nn.Module], None]]:
    """Follow the initialisation of everything inside the block; the function given notes it on a model's modules."""
    draws = Draws()
    originals = {name: getattr(nn.init, name) for name in SILENT}
    for name, original in originals.items():
        setattr(nn.init, name, draws.speaking(original, SILENT[name]))
    try:
        with draws:
            yield draws.note
    finally:
        for name, original in originals.items():
            setattr(nn.init, name, original)


def finish(model: nn.Module) -> None:
    """Run the initialisation that transformers leaves out on meta, where its weights are to be loaded afterwards."""
    for module in model.modules():
        library = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(module).__mro__}
        if "transformers.modeling_utils.PreTrainedModel" in library:
            module.initialize_weights()  # type: ignore[operator]
            return


class Draws(TorchFunctionMode):
    """Keeps, for each storage on meta, points of the distribution that its entries have by now, or None if unknown."""

    def __init__(self) -> None:
        super().__init__()
        self.points: dict[int, Tensor | None] = {}
        self._held: dict[int, object] = {}  # the storages, so that none is freed and its address used again
        self._generator = torch.Generator(device="cpu").manual_seed(0)
        order = torch.randperm(POINTS, generator=self._generator, device="cpu")
        self.uniform = ((torch.arange(POINTS, device="cpu", dtype=torch.float64) + 0.5) / POINTS)[order]
        self.normal = torch.erfinv(2 * self.uniform - 1) * math.sqrt(2)
        self.normal /= self.normal.std(correction=0)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__") or not _on_meta((*args, result)):
            return result
        try:
            self._follow(func, name, args, kwargs, result)
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
            self._forget(args[0] if _mutates(name) and args else result)
        return result

    def speaking(self, original: Callable[..., Tensor], drawn: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """A scheme of torch.nn.init that leaves tensors on meta alone, without a call that a mode could see."""

        @functools.wraps(original)
        def initialise(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if not tensor.is_meta:
                return original(tensor, *args, **kwargs)
            with torch._C.DisableTorchFunction():
                self._write(tensor, drawn(self, tensor, *args, **kwargs))
            return tensor

        return initialise

    def note(self, model: nn.Module) -> None:
        """Write what is known of every parameter into the modules that own them."""
        for module in model.modules():
            known = {name: self._initial(param) for name, param in module.named_parameters(recurse=False)}
            module.__dict__[ATTRIBUTE] = {name: found for name, found in known.items() if found is not None}

    def _initial(self, param: Tensor) -> Initial | None:
        points = self.read(param) if param.is_meta else param.detach().double().reshape(-1)
        if points is None or points.numel() == 0 or not bool(torch.isfinite(points).all()):
            return None
        mean, square = float(points.mean()), float((points**2).mean())
        std = float(points.std(correction=0))
        zero = float((points == 0).double().mean())
        count = param.numel()
        vector = points[(torch.arange(count, device="cpu") * len(points)) // count] if param.ndim < 2 else None
        return Initial(mean, std, math.sqrt(square), float(points.abs().max()), zero, vector)

    # -- following one call

    def _follow(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        plain = name.strip("_")
        if name in START:
            self._write(result, START[name](self, args, kwargs))
        elif name in DRAWN:
            drawn = torch.empty(POINTS, dtype=torch.float64, device="cpu")
            self._write(result, func(drawn, *args[1:], **kwargs | {"generator": self._generator}))
        elif name == "copy_":
            self._write(args[0], self._operand(args[1]))
        elif name == "__setitem__":
            self._write(args[0][args[1]], self._operand(args[2]), whole=args[0])
        elif plain in ELEMENTWISE:
            self._apply(func, name, args, kwargs, result)
        elif plain in MOVED and isinstance(result, Tensor) and not self._shares(result, args[0]):
            self._write(result, self._operand(args[0]))
        elif name in ("cat", "concat", "stack"):
            self._write(result, self._joined(args[0]))
        elif name in ("qr", "linalg_qr"):
            self._write(result[0], self.normal / math.sqrt(max(args[0].shape[-2], 1)))
        elif _mutates(name) and name not in (
            "requires_grad_",
            "share_memory_",
            "detach_",
            "squeeze_",
            "unsqueeze_",
            "t_",
        ):
            self._forget(args[0])

    def _apply(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """The same call on the points; an entry's sign, where nothing is known of it, is a coin toss."""
        if name in ("to", "type", "type_as", "float", "double", "half", "bfloat16"):
            points = self._operand(args[0])
        elif name == "sign" and self._operand(args[0]) is None:
            points = torch.sign(self.uniform - 0.5)
        else:
            blank = name in ("fill_", "zero_")
            operands = [self._blank() if blank and i == 0 else self._points(a) for i, a in enumerate(args)]
            points = None if any(o is UNKNOWN for o in operands) else func(*operands, **kwargs)
        if isinstance(result, Tensor):
            self._write(result, points)

    def _points(self, value: Any) -> Any:
        """An operand as points; UNKNOWN for a tensor of which nothing is known."""
        if not isinstance(value, Tensor):
            return value
        found = self._operand(value)
        return UNKNOWN if found is None else found.clone()

    def _operand(self, value: Any) -> Tensor | None:
        if not isinstance(value, Tensor):
            return torch.full((POINTS,), float(value), dtype=torch.float64, device="cpu")
        if value.is_meta:
            return self.read(value)
        flat = value.detach().double().reshape(-1)
        return flat[(self.uniform * flat.numel()).long()] if flat.numel() else None

    def _blank(self) -> Tensor:
        return torch.zeros(POINTS, dtype=torch.float64, device="cpu")

    def _joined(self, parts: Sequence[Tensor]) -> Tensor | None:
        known = [self._operand(part) for part in parts]
        sizes = [part.numel() for part in parts]
        if any(points is None for points in known) or not sum(sizes):
            return None
        ends = [round(POINTS * sum(sizes[: n + 1]) / sum(sizes)) for n in range(len(sizes))]
        pieces = [
            points[start:end] for points, start, end in zip(known, [0, *ends], ends, strict=False) if points is not None
        ]
        return torch.cat(pieces)

    # -- points by storage

    def read(self, tensor: Tensor) -> Tensor | None:
        """The points of a tensor's entries, as many as its share of the storage holds."""
        points = self.points.get(_address(tensor))
        place = self._place(tensor)
        if points is None or (isinstance(place, Tensor) and not len(place)):
            return points
        found = points[place]
        return found[(torch.arange(POINTS, device="cpu") * len(found)) // POINTS]

    def _write(self, tensor: Tensor, points: Tensor | None, whole: Tensor | None = None) -> None:
        if whole is not None and not self._shares(tensor, whole):
            if tensor.numel() * POINTS >= whole.numel():  # indices that are no view: not a negligible part
                self._forget(whole)
            return
        address, place = _address(tensor), self._place(tensor)
        self._held[address] = tensor.untyped_storage()
        if isinstance(place, slice):
            self.points[address] = None if points is None else points.double()
        elif points is None:
            self.points[address] = None
        else:
            known = self.points.get(address)
            known = self._blank() if known is None else known.clone()
            known[place] = points.double()[place]
            self.points[address] = known

    def _forget(self, tensor: Any) -> None:
        if isinstance(tensor, Tensor) and tensor.is_meta:
            self.points[_address(tensor)] = None

    def _place(self, tensor: Tensor) -> slice | Tensor:
        """Which points stand for a view: a run for a contiguous part of its storage, an even selection otherwise."""
        entries = tensor.untyped_storage().nbytes() // max(tensor.element_size(), 1)
        if tensor.numel() >= entries:
            return slice(None)
        share = tensor.numel() / entries
        if tensor.is_contiguous():
            start = tensor.storage_offset() / entries
            return torch.arange(round(POINTS * start), round(POINTS * (start + share)), device="cpu")
        return (torch.arange(round(POINTS * share), device="cpu") / max(share, 1e-12)).long().clamp(max=POINTS - 1)

    def _shares(self, first: Tensor, second: Any) -> bool:
        return isinstance(second, Tensor) and first.is_meta and second.is_meta and _address(first) == _address(second)


UNKNOWN = object()


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _mutates(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__")


def _on_meta(values: Sequence[Any]) -> bool:
    flat = [v for value in values for v in (value if isinstance(value, (tuple, list)) else (value,))]
    return any(isinstance(value, Tensor) and value.is_meta for value in flat)


def _number(args: tuple[Any, ...], kwargs: Mapping[str, Any], place: int, name: str, default: float) -> float:
    value = kwargs.get(name, args[place] if len(args) > place else default)
    return float(value)


def _normal(draws: Draws, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    return _number(args, kwargs, 1, "mean", 0.0) + _number(args, kwargs, 2, "std", 1.0) * draws.normal


def _uniform(draws: Draws, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    low = _number(args, kwargs, 1, "a" if "a" in kwargs else "from", 0.0)
    high = _number(args, kwargs, 2, "b" if "b" in kwargs else "to", 1.0)
    return low + (high - low) * draws.uniform


def _kaiming(draws: Draws, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """He et al. 2015, uniform: the one scheme of torch.nn.init that a mode sees whole, without the calls it makes."""
    weight = kwargs.get("tensor", args[0] if args else None)
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(weight)
    fan = fan_out if kwargs.get("mode", "fan_in") == "fan_out" else fan_in
    gain = nn.init.calculate_gain(kwargs.get("nonlinearity", "leaky_relu"), kwargs.get("a", 0.0))
    return gain * math.sqrt(3.0 / max(fan, 1)) * (2 * draws.uniform - 1)


def _filled(draws: Draws, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    return draws._blank() + _number(args, kwargs, 1, "fill_value", math.nan)


def _given(draws: Draws, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """torch.tensor(numbers): they are in the arguments."""
    data = kwargs.get("data", args[0] if args else None)
    return draws._operand(torch.as_tensor(data, dtype=torch.float64, device="cpu"))


def _normal_of(draws: Draws, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """torch.normal(mean, std, size)."""
    return _number(args, kwargs, 0, "mean", 0.0) + _number(args, kwargs, 1, "std", 1.0) * draws.normal


# Calls that say by themselves what the entries of their result are.
START: Mapping[str, Callable[[Draws, tuple[Any, ...], Mapping[str, Any]], Tensor | None]] = {
    "normal_": _normal,
    "uniform_": _uniform,
    "constant_": lambda draws, args, kwargs: draws._blank() + _number(args, kwargs, 1, "val", math.nan),
    "kaiming_uniform_": _kaiming,
    "normal": _normal_of,
    "randn": lambda draws, args, kwargs: draws.normal.clone(),
    "randn_like": lambda draws, args, kwargs: draws.normal.clone(),
    "rand": lambda draws, args, kwargs: draws.uniform.clone(),
    "rand_like": lambda draws, args, kwargs: draws.uniform.clone(),
    "zeros": lambda draws, args, kwargs: draws._blank(),
    "zeros_like": lambda draws, args, kwargs: draws._blank(),
    "ones": lambda draws, args, kwargs: draws._blank() + 1,
    "ones_like": lambda draws, args, kwargs: draws._blank() + 1,
    "full": _filled,
    "full_like": _filled,
    "tensor": _given,
    "as_tensor": _given,
}


def _truncated(
    draws: Draws, tensor: Tensor, mean: float, std: float, a: float, b: float, generator: object = None
) -> Tensor:
    below, above = (0.5 * (1 + math.erf((end - mean) / std / math.sqrt(2))) for end in (a, b))
    share = below + (above - below) * draws.uniform
    return (mean + std * math.sqrt(2) * torch.erfinv(2 * share - 1)).clamp(a, b)


def _orthogonal(draws: Draws, tensor: Tensor, gain: float = 1.0, generator: object = None) -> Tensor:
    """Rows or columns of unit length, whichever are fewer (Saxe et al. 2014)."""
    rows = tensor.shape[0]
    return gain / math.sqrt(max(rows, tensor.numel() // max(rows, 1))) * draws.normal


def _identity(draws: Draws, tensor: Tensor, *args: object) -> Tensor:
    """Ones on a diagonal of the first two axes, zeros elsewhere."""
    return (draws.uniform < min(tensor.shape[:2]) / max(tensor.numel(), 1)).double()


def _sparse(draws: Draws, tensor: Tensor, sparsity: float, std: float = 0.01, generator: object = None) -> Tensor:
    kept = torch.roll(draws.uniform, 1) >= sparsity
    return std * draws.normal * kept


# Schemes of torch.nn.init that return at once on meta.
SILENT: Mapping[str, Callable[..., Tensor]] = {
    "_no_grad_trunc_normal_": _truncated,
    "orthogonal_": _orthogonal,
    "eye_": _identity,
    "dirac_": _identity,
    "sparse_": _sparse,
}
