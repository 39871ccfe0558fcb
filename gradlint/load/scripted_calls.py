"""What TorchScript's operators do: Python's own for numbers, lists and strings, torch's for tensors."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gradlint.load.scripted_graph import Step
from gradlint.onnx.node import UnsupportedError

Function = Callable[..., Any]


def call(step: Step, args: list[Any]) -> Any:
    """The result of an operator. Raises UnsupportedError for one that is not known."""
    name = step.kind.partition("::")[2]
    special = ALWAYS.get(name)
    if special is not None:
        return special(*args)
    if not any(isinstance(arg, Tensor) for arg in args):
        plain = PLAIN.get(name)
        if plain is not None:
            return plain(*args)
    given = [_as_tensor(arg) if i in step.tensors else arg for i, arg in enumerate(args)]
    named = {name: given[i] for i, name in step.keywords}
    return _torch(step)(*given[: len(given) - len(named)], **named)


def is_known(step: Step) -> bool:
    """Whether there is something that the step can be run by."""
    try:
        return step.kind in STRUCTURE or step.kind.partition("::")[2] in ALWAYS or bool(_torch(step))
    except UnsupportedError:
        return step.kind.partition("::")[2] in PLAIN


def _torch(step: Step) -> Function:
    space, _, name = step.kind.partition("::")
    packet = getattr(getattr(torch.ops, space), name, None)
    if packet is None:
        raise UnsupportedError(f"TorchScript's {step.kind}")
    overload: Function | None = getattr(packet, step.overload or "default", None)
    if overload is None:
        raise UnsupportedError(f"TorchScript's {step.kind}.{step.overload}")
    return overload


def holds_tensor(value: Any) -> bool:
    """Whether the value is a tensor, or a list or tuple with one in it."""
    return isinstance(value, Tensor) or (isinstance(value, (list, tuple)) and any(map(holds_tensor, value)))


def _as_tensor(value: Any) -> Any:
    """A number of a traced graph, which says Tensor where it computes sizes."""
    return torch.tensor(value) if isinstance(value, (bool, int, float)) else value


def _append(items: list[Any], item: Any) -> list[Any]:
    items.append(item)
    return items


def _extend(items: list[Any], more: list[Any]) -> None:
    items.extend(more)


def _put(items: Any, key: Any, item: Any) -> Any:
    items[key] = item
    return items


def _slice(items: Any, start: int | None, end: int | None, step: int = 1) -> Any:
    return items[start:end:step]


def _divide(first: Any, second: Any, rounding: str | None = None) -> Any:
    if rounding is None:
        return first / second
    return math.trunc(first / second) if rounding == "trunc" else first // second


def _sum(first: Any, second: Any, alpha: Any = 1) -> Any:
    return first + second if alpha == 1 else first + alpha * second


def _difference(first: Any, second: Any, alpha: Any = 1) -> Any:
    return first - alpha * second


def _format(text: str, *values: Any) -> str:
    return text.format(*values)


def _unwrapped(value: Any) -> Any:
    if value is None:
        raise ValueError("None where a value is needed")
    return value


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: Any,
    more: Any,
    *rest: Any,
) -> Any:
    """Traces name the function beneath all convolutions: the one that the model called is called."""
    dims, groups = weight.dim() - 2, rest[0]
    if transposed:
        deconvolve: Function = getattr(torch, f"conv_transpose{dims}d")
        return deconvolve(x, weight, bias, stride, padding, more, groups, dilation)
    convolve: Function = getattr(torch, f"conv{dims}d")
    return convolve(x, weight, bias, stride, padding, dilation, groups)


def _embedding(weight: Tensor, ids: Tensor, padding: int = -1, *rest: Any) -> Any:
    """The padding's row counts from the end, or is none, where it is negative."""
    by_frequency, sparse = (*rest, False, False)[:2]
    return nn.functional.embedding(
        ids, weight, padding if padding >= 0 else None, scale_grad_by_freq=by_frequency, sparse=sparse
    )


def _cast(kind: type) -> Function:
    return lambda value: kind(value)


# what is no call of an operator
STRUCTURE = frozenset(
    {
        "prim::Constant",
        "prim::GetAttr",
        "prim::SetAttr",
        "prim::CallMethod",
        "prim::CallFunction",
        "prim::If",
        "prim::Loop",
        "prim::RaiseException",
        "prim::TupleUnpack",
        "prim::ListUnpack",
    }
)

# by name, whatever they are given
ALWAYS: Mapping[str, Function] = {
    "_convolution": _convolution,
    "embedding": _embedding,
    "append": _append,
    "extend": _extend,
    "_set_item": _put,
    "insert": lambda items, place, item: items.insert(place, item),
    "__getitem__": operator.getitem,
    "__contains__": operator.contains,
    "__is__": operator.is_,
    "__isnot__": operator.is_not,
    "__not__": operator.not_,
    "len": len,
    "keys": lambda held: list(held.keys()),
    "values": lambda held: list(held.values()),
    "items": lambda held: list(held.items()),
    "list": list,
    "dict": dict,
    "format": _format,
    "warn": lambda *_: None,
    "Print": lambda *_: None,
    "size": lambda tensor, dim=None: list(tensor.shape) if dim is None else tensor.shape[dim],
    "dim": lambda tensor: tensor.dim(),
    "Int": _cast(int),
    "Float": _cast(float),
    "Bool": _cast(bool),
    "IntImplicit": _cast(int),
    "FloatImplicit": _cast(float),
    "ScalarImplicit": lambda value: value.item() if isinstance(value, Tensor) else value,
    "_unwrap_optional": _unwrapped,
    "unchecked_unwrap_optional": lambda value: value,
    "unchecked_cast": lambda value: value,
    "NumToTensor": lambda value: value,  # the sizes of a traced graph stay numbers until a tensor is needed
    "Uninitialized": lambda: None,
    "TupleConstruct": lambda *items: items,
    "ListConstruct": lambda *items: list(items),
    "TupleIndex": operator.getitem,
    "DictConstruct": lambda *items: dict(zip(items[::2], items[1::2], strict=True)),
    "device": lambda tensor: tensor.device,
    "dtype": lambda tensor: tensor.dtype,
    "layout": lambda tensor: tensor.layout,
    "is_cuda": lambda tensor: tensor.is_cuda,
    "is_nested": lambda tensor: tensor.is_nested,
    "requires_grad": lambda tensor: tensor.requires_grad,
    "is_grad_enabled": torch.is_grad_enabled,
    "is_scripting": lambda: False,
    "is_autocast_enabled": lambda *_: False,
    "is_autocast_cpu_enabled": lambda *_: False,
    "data": lambda tensor: tensor.detach(),
}

# where no tensor is among what they are given
PLAIN: Mapping[str, Function] = {
    "add": _sum,
    "add_": _sum,
    "sub": _difference,
    "mul": operator.mul,
    "div": _divide,
    "floordiv": operator.floordiv,
    "floor_divide": operator.floordiv,
    "remainder": operator.mod,
    "pow": operator.pow,
    "neg": operator.neg,
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
    "round": round,
    "sqrt": math.sqrt,
    "exp": math.exp,
    "log": math.log,
    "min": min,
    "max": max,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "__and__": operator.and_,
    "__or__": operator.or_,
    "__xor__": operator.xor,
    "slice": _slice,
    "copy": lambda items: items.copy(),
    "str": str,
    "item": lambda value: value,
    "sum": sum,
}
