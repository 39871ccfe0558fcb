"""Models too large to hold: built without memory on torch's meta device, and run there with made-up answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gradlint.error import LoadError
from gradlint.load import initial

SMALL = 65536
"""Tensors up to this many elements stay real while building, so that constructors may read them (RegNet's widths)."""

BYTES_PER_ELEMENT = 16
"""Weight, the probe's copy, its gradient and room for activations, in float32."""

DEFAULT_MEMORY = 4 * 2**30

FACTORIES = frozenset(
    {"empty", "zeros", "ones", "full", "rand", "randn", "randint", "randperm", "normal", "arange", "linspace", "eye"}
)
"""The functions through which a constructor allocates; `tensor` and `from_numpy` hold data already and are not."""


COPIES = frozenset({"clone", "empty_like", "zeros_like", "ones_like", "rand_like", "randn_like", "full_like"})


class TooLarge(BaseException):
    """Raised inside a constructor once it has allocated more than the limit (user code cannot catch it by accident)."""


def build(factory: Callable[[], nn.Module], memory: int | None = None) -> tuple[nn.Module, bool]:
    """Build a model really if it fits the memory (bytes), else on meta: (model, whether it is on meta).

    The constructor runs once when the model fits. A model that does not fit is noticed while it allocates, long before
    the memory is full, and its constructor is run again on meta.
    """
    try:
        with Allocations((memory or DEFAULT_MEMORY) // BYTES_PER_ELEMENT):
            return factory(), False
    except TooLarge:
        return meta_build(factory), True


def meta_build(factory: Callable[[], nn.Module]) -> nn.Module:
    """Build on meta: shapes and code, no numbers. Large tensors only when the constructor reads small ones.

    Raises LoadError when the constructor needs the numbers of a large tensor.
    """
    try:
        with torch.device("meta"):
            return _noted(factory).to("meta")
    except (NotImplementedError, RuntimeError, ValueError, TypeError):
        return _hybrid(factory)


def _noted(factory: Callable[[], nn.Module]) -> nn.Module:
    """The model, with what its parameters would have been initialised to noted on its modules."""
    with initial.noting() as note:
        model = factory()
        initial.finish(model)
        note(model)
    return model


def _hybrid(factory: Callable[[], nn.Module]) -> nn.Module:
    try:
        with LargeOnMeta():
            return _noted(factory).to("meta")
    except (NotImplementedError, RuntimeError) as error:
        raise LoadError(
            f"the model is too large to build and its constructor does not run without memory: {error}",
            "give it more memory with --memory, or lint a smaller configuration of it",
        ) from error


class Allocations(TorchFunctionMode):
    """Counts the elements that factories allocate and raises TooLarge past the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.elements = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.elements += requested(func, args, kwargs or {}) + copied(func, args)
        if self.elements > self.limit:
            raise TooLarge
        return func(*args, **(kwargs or {}))


class LargeOnMeta(TorchFunctionMode):
    """Puts what factories allocate on meta when it is large, and moves mixed operands there too."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if requested(func, args, kwargs) > SMALL:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def requested(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """How many elements a factory call allocates; 0 for any other call, or on meta."""
    name = getattr(func, "__name__", "")
    if name not in FACTORIES or str(kwargs.get("device") or torch.get_default_device()).startswith("meta"):
        return 0
    given = kwargs.get("size", args)
    if name in ("arange", "linspace", "randperm", "normal"):
        return 0
    return math.prod(_integers(given)) if name != "eye" else math.prod(_integers(args)) ** 2


def copied(func: Any, args: tuple[Any, ...]) -> int:
    """How many elements a copy of a tensor allocates: deep-copied layers (nn.TransformerEncoder) clone theirs."""
    first = args[0] if args else None
    if getattr(func, "__name__", "") not in COPIES or not isinstance(first, Tensor) or first.is_meta:
        return 0
    return first.numel()


def _integers(given: Any) -> list[int]:
    """The leading sizes of `empty(2, 3)`, `empty((2, 3))` or `full((2, 3), 0.5)`."""
    if isinstance(given, (tuple, list)) and given and isinstance(given[0], (tuple, list, torch.Size)):
        given = given[0]
    values = given if isinstance(given, (tuple, list)) else (given,)
    return [int(v) for v in values if isinstance(v, int)] or [0]


class Answers(TorchFunctionMode):
    """Answers questions that meta tensors cannot (`item`, `bool`, `nonzero` …) with made-up values, and counts them.

    What follows an answer is one assumed branch of the code; `count` says how often that happened.
    """

    def __init__(self, *, truth: bool = True) -> None:
        super().__init__()
        self.truth = truth
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        subject = args[0] if args and isinstance(args[0], Tensor) else None
        answer = ANSWERS.get(getattr(func, "__name__", ""))
        if subject is not None and subject.is_meta and answer is not None:
            value = answer(self, subject, args, kwargs)
            if value is not UNASKED:
                self.count += 1
                return value
        return func(*args, **kwargs)


UNASKED = object()
"""What an answer function returns to let the call go its own way."""

Answer = Callable[[Answers, Tensor, tuple[Any, ...], dict[str, Any]], object]


def _scalar(mode: Answers, subject: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    if subject.dtype == torch.bool:
        return mode.truth
    return 0.5 if subject.is_floating_point() else 1


def _listed(mode: Answers, subject: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    def nest(shape: tuple[int, ...]) -> object:
        return [nest(shape[1:]) for _ in range(shape[0])] if shape else _scalar(mode, subject, args, kwargs)

    return nest(tuple(subject.shape))


def _places(mode: Answers, subject: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    """Every entry is taken for non-zero."""
    index = torch.zeros(subject.numel(), dtype=torch.long, device="meta")
    return tuple(index for _ in range(max(subject.dim(), 1)))


def _nonzero(mode: Answers, subject: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    if kwargs.get("as_tuple"):
        return _places(mode, subject, args, kwargs)
    return torch.zeros(subject.numel(), subject.dim(), dtype=torch.long, device="meta")


def _where(mode: Answers, subject: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    return _places(mode, subject, args, kwargs) if len(args) == 1 else UNASKED


def _selected(mode: Answers, subject: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    """x[mask]: the mask is taken to be true everywhere."""
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    if not any(isinstance(i, Tensor) and i.dtype == torch.bool for i in index):
        return UNASKED
    places: list[Any] = []
    for item in index:
        if isinstance(item, Tensor) and item.dtype == torch.bool:
            places += [torch.zeros(item.numel(), dtype=torch.long, device="meta")] * item.dim()
        else:
            places.append(item)
    return subject[tuple(places)]


def _grouped(mode: Answers, subject: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    """The meta kernel of grouped_mm takes bfloat16 only; the real one takes float32 as well."""
    shape = (*subject.shape[:-1], args[1].shape[-1])
    return subject.new_empty(shape) + 0 * (subject.sum() + args[1].sum())


ANSWERS: dict[str, Answer] = {
    "item": _scalar,
    "tolist": _listed,
    "__bool__": lambda mode, *_: mode.truth,
    "is_nonzero": lambda mode, *_: mode.truth,
    "equal": lambda mode, *_: mode.truth,
    "allclose": lambda mode, *_: mode.truth,
    "__int__": lambda mode, *_: 1,
    "__index__": lambda mode, *_: 1,
    "__float__": lambda mode, *_: 0.5,
    "__contains__": lambda mode, *_: False,
    "nonzero": _nonzero,
    "argwhere": _nonzero,
    "where": _where,
    "__getitem__": _selected,
    "_grouped_mm": _grouped,
    "grouped_mm": _grouped,
    "cpu": lambda mode, subject, *_: subject,
}
