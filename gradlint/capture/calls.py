"""What is known of a torch call before it runs: its name, what it mutates, and whether it can produce a tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any, cast

import torch
from torch.nn import functional
from torch.overrides import resolve_name

Function = Callable[..., Any]
Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]

_DERIVED = frozenset({"T", "mT", "H", "mH", "data", "grad", "real", "imag", "_base"})  # properties that are tensors
# fmt: off
_QUERIES = frozenset({
    "size", "dim", "ndimension", "numel", "nelement", "stride", "storage", "storage_offset",
    "untyped_storage", "item", "tolist", "numpy", "element_size", "__len__", "__bool__", "__int__",
    "__float__", "__complex__", "__index__", "__contains__", "__repr__", "__format__", "__hash__",
    "__reduce_ex__", "__array__", "__iter__", "get_device", "data_ptr", "equal", "allclose", "register_hook",
    "register_post_accumulate_grad_hook", "backward", "is_floating_point", "is_complex", "is_contiguous",
    "is_pinned", "is_signed", "is_nonzero", "is_same_size", "is_inference", "is_shared", "is_conj", "is_neg",
    "is_set_to", "is_distributed", "is_coalesced", "result_type", "can_cast", "promote_types",
    "broadcast_shapes", "finfo", "iinfo", "has_names", "retain_grad", "manual_seed", "get_default_dtype",
    "dense_dim", "sparse_dim", "q_scale",
})
# fmt: on
_READS = frozenset({"item", "tolist", "__float__"})  # queries that answer with the tensor's numbers
_RETURNS_NOTHING = frozenset({"__setitem__", "__set__"})
_TESTS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")


@dataclass(frozen=True)
class Signature:
    """A torch function: its qualified name, the last part of it, and how it treats its first argument.

    `query` is whether it never returns a tensor; `flag` is the position of a positional `inplace` argument.
    """

    name: str
    short: str
    mutates: bool
    query: bool
    flag: int | None


_signatures: dict[Function, Signature] = {}
LEARNED: dict[Function, bool] = {}  # whether calls of the function were seen to return a tensor
_composites: dict[Function, Function] = {}


def signature(func: Function) -> Signature:
    """The signature of a torch function, from its name."""
    known = _signatures.get(func)
    if known is None:
        known = _signatures[func] = _signature(func)
    return known


def _signature(func: Function) -> Signature:
    name = _name(func)
    short = _short(name)
    mutates = short in _RETURNS_NOTHING or _is_mutating(short)
    return Signature(name, short, mutates, _is_query(name, short), _inplace_position(func))


def _name(func: Function) -> str:
    if isinstance(func, torch._ops.OpOverload):
        return str(func._name).replace("::", ".")
    if isinstance(func, torch._ops.OpOverloadPacket):
        return str(func._qualified_op_name).replace("::", ".")
    name = resolve_name(func)
    if not name:
        module = getattr(func, "__module__", None)
        qualified = getattr(func, "__qualname__", None) or type(func).__qualname__
        name = f"{module}.{qualified}" if module else qualified
    return str(name).replace("_VariableFunctionsClass.", "")


def _short(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "aten" and len(parts) > 1:
        return parts[1]
    return parts[-2] if parts[-1] == "__get__" and len(parts) > 1 else parts[-1]


def _is_mutating(short: str) -> bool:
    if short.startswith("__"):
        return short.startswith("__i") and short.endswith("__") and short not in _DUNDER_I
    return short.endswith("_")


_DUNDER_I = frozenset({"__int__", "__index__", "__iter__", "__invert__", "__init__", "__instancecheck__"})


def _is_query(name: str, short: str) -> bool:
    return short not in _DERIVED if name.endswith("__get__") else short in _QUERIES


def _inplace_position(func: Function) -> int | None:
    if not isinstance(func, FunctionType):
        return None
    names = func.__code__.co_varnames[: func.__code__.co_argcount]
    return names.index("inplace") if "inplace" in names else None


def is_query(func: Function) -> bool:
    """Whether the call can be told to return no tensor: by its name, or because earlier calls of it never did."""
    known = signature(func)
    return known.query or LEARNED.get(func) is False


def read(func: Function, args: Args) -> torch.Tensor | None:
    """The tensor whose numbers the call hands to Python although a gradient belongs to them: `x.item()`."""
    if signature(func).short not in _READS or not args or not isinstance(args[0], torch.Tensor):
        return None
    return args[0] if args[0].requires_grad and torch.is_grad_enabled() else None


def learn(func: Function, *, produced: bool) -> None:
    """Remember whether a call of the function returned a tensor, so that a replay can tell before it calls."""
    if produced:
        LEARNED[func] = True
    else:
        LEARNED.setdefault(func, False)


def mutated(func: Function, args: Args, kwargs: Kwargs) -> torch.Tensor | None:
    """The tensor that the call changes in place, or None."""
    known = signature(func)
    out = kwargs.get("out")
    if isinstance(out, torch.Tensor):
        return out
    flag = kwargs.get("inplace", False)
    if known.flag is not None and len(args) > known.flag:
        flag = args[known.flag]
    if not (known.mutates or flag):
        return None
    first = args[0] if args else kwargs.get("input", kwargs.get("self"))
    return first if isinstance(first, torch.Tensor) else None


def tensors(value: object, depth: int = 0) -> Iterator[torch.Tensor]:
    """Every tensor in nested lists, tuples and dicts, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif depth < 5 and isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item, depth + 1)
    elif depth < 5 and isinstance(value, dict):
        for item in value.values():
            yield from tensors(item, depth + 1)


def produced(func: Function, args: Args, output: object) -> tuple[torch.Tensor, ...]:
    """The tensors that a finished call produced or changed: those it returned, or its target for `x[i] = y`."""
    if isinstance(output, torch.Tensor):
        return (output,)
    if isinstance(output, (tuple, list)):
        return tuple(tensors(output))
    if output is None and args and signature(func).short in _RETURNS_NOTHING:
        return tuple(tensors(args[0]))
    return ()


def composite(func: Function) -> Function | None:
    """A copy of a torch function written in Python that runs its inner calls under the mode; None for all others.

    Calling the function itself under the mode would dispatch to the mode again, for ever.
    """
    if func not in _DESCEND:
        return None
    copy = _composites.get(func)
    if copy is None:
        copy = _composites[func] = _without_dispatch(cast(FunctionType, func))
    return copy


def _without_dispatch(func: FunctionType) -> Function:
    scope = dict(func.__globals__) | dict.fromkeys(_TESTS, _never)
    copy = FunctionType(func.__code__, scope, func.__name__, func.__defaults__, func.__closure__)
    copy.__kwdefaults__ = func.__kwdefaults__
    return copy


def _never(*_: object) -> bool:
    return False


_DESCEND: frozenset[Function] = frozenset({functional.multi_head_attention_forward})
