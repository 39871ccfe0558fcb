"""Losses to backpropagate from: those a user can name, a guess from the last op, and targets drawn to fit an output."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlint.capture.structure import Named
from gradlint.error import ProbeError, UsageError
from gradlint.graph.ir import Graph, Op
from gradlint.graph.traversal import makers
from gradlint.probe.target import SYMMETRIC, UNIT, Random, Target, bits, bounds, fitted, labels, normal, numbers, rows

Function = Callable[..., Any]

# Ops behind which the last weighted op is looked for: they keep the axis that holds the classes.
_PASSING = frozenset({"activation", "norm", "dropout", "add", "mul", "copy", "elementwise", "softmax", "pad", "resize"})


@dataclass(frozen=True)
class Loss:
    """A named loss: its value with targets drawn from the generator, and that of an uninformed prediction."""

    value: Callable[[Target, Random], Tensor]
    chance: Callable[[Target], float | None]


@dataclass(frozen=True)
class Value:
    """A loss that was computed: what to backpropagate, under which name, and how it was chosen."""

    total: Tensor
    name: str
    reason: str
    chance: float | None
    main: Tensor | None  # the output it is mostly about
    notes: tuple[str, ...] = ()
    guessed: bool = False  # neither told, nor the model's own, nor one that the user's targets call for


def ce(target: Target, random: Random) -> Tensor:
    """Cross-entropy of logits with random labels; the mean over every position."""
    return F.cross_entropy(rows(target), labels(target, random))


def nll(target: Target, random: Random) -> Tensor:
    """Negative log-likelihood of an output that holds log-probabilities."""
    return F.nll_loss(rows(target), labels(target, random))


def nll_prob(target: Target, random: Random) -> Tensor:
    """Negative log-likelihood of an output that holds probabilities."""
    found = rows(target)
    return F.nll_loss(found.clamp_min(torch.finfo(found.dtype).tiny).log(), labels(target, random))


def bce(target: Target, random: Random) -> Tensor:
    """Binary cross-entropy of probabilities, clamped to [0, 1] where they leave it (torch raises there on the CPU)."""
    if not target.output.isfinite().all():
        return target.output.mean()  # torch raises on NaN, which the report should rather show
    return F.binary_cross_entropy(target.output.clamp(0.0, 1.0), bits(target, random))


def bce_logits(target: Target, random: Random) -> Tensor:
    """Binary cross-entropy of logits."""
    return F.binary_cross_entropy_with_logits(target.output, bits(target, random))


def mse(target: Target, random: Random) -> Tensor:
    """Mean squared error to N(0, 1) targets, or to uniform ones within the bounds of a bounded output."""
    return F.mse_loss(target.output, numbers(target, random))


def unit(target: Target, random: Random) -> Tensor:
    """Sum of the output times N(0, 1) numbers: a gradient of unit RMS arrives at the output."""
    return (target.output * normal(target, random)).sum()


def own(target: Target, random: Random) -> Tensor:
    """The loss that the model computed itself."""
    return target.output.sum()


def _log_classes(target: Target) -> float | None:
    return math.log(target.classes) if target.classes > 1 else None


def _variance(target: Target) -> float:
    if target.given is not None:
        return float(target.given.detach().double().var(correction=0))  # the loss of their mean
    known = bounds(target.op)
    return 1.0 if known is None else (known[1] - known[0]) ** 2 / 12.0


LOSSES: Mapping[str, Loss] = {
    "ce": Loss(ce, _log_classes),
    "nll": Loss(nll, _log_classes),
    "nll_prob": Loss(nll_prob, _log_classes),
    "bce": Loss(bce, lambda _: math.log(2.0)),
    "bce_logits": Loss(bce_logits, lambda _: math.log(2.0)),
    "mse": Loss(mse, _variance),
    "unit": Loss(unit, lambda _: None),
    "own": Loss(own, lambda _: None),
}


def compute(
    output: object,
    outputs: Sequence[Named],
    graph: Graph,
    random: Random,
    name: str | None = None,
    given: object = None,
) -> Value | None:
    """The loss of one forward pass; None when no floating output requires a gradient.

    `output` is what the model returned, `outputs` its tensors in the order of `graph.outputs`. `name` is one of LOSSES,
    "module:function", or None for a guess. `given` is what a batch of the user's own holds besides the inputs; without
    it targets are drawn. The loss is taken of the first floating output that requires a gradient. A
    further output only counts when it leads to parameters that no earlier one leads to (an RNN's last state does not,
    the value head of an actor-critic does), each with the loss that fits it; so every parameter that can get a gradient
    gets one. Raises ProbeError when the loss cannot be computed of this output, and UsageError when the name means
    nothing.
    """
    candidates = targets(outputs, graph)
    if name is not None and ":" in name:
        return _custom(name, output, candidates, random, given)
    if name is not None and name not in LOSSES:
        raise UsageError(f"unknown loss {name!r}", f"one of {', '.join(LOSSES)}, or module:function")
    if not candidates:
        return None
    chosen = _covering(candidates, own_first=name in (None, "own"))
    first = chosen[0] if given is None or not chosen[0].output.ndim else fitted(chosen[0], given)
    picked, reason = (name, "told") if name is not None else guess(first)
    total = _value(picked, first, random)
    for other in chosen[1:]:
        total = total + _value(guess(other)[0], other, random)
    further = (f"{len(chosen) - 1} further outputs added to the loss",) if len(chosen) > 1 else ()
    guessed = name is None and picked != "own" and first.given is None
    remarks = further + _remarks(picked, first)
    return Value(total, picked, reason, LOSSES[picked].chance(first), first.output, remarks, guessed)


def choose(outputs: Sequence[Named], graph: Graph) -> tuple[str, str]:
    """The name of the loss that fits the outputs, and why: by the last op, then by the shape.

    ("unit", …) when no output requires a gradient.
    """
    candidates = targets(outputs, graph)
    if not candidates:
        return "unit", "no output requires a gradient"
    return guess(_covering(candidates, own_first=True)[0])


def targets(outputs: Sequence[Named], graph: Graph) -> list[Target]:
    """Every floating output that requires a gradient, in order, one called `loss` first."""
    known = len(graph.outputs) == len(outputs)
    values = dict(zip((id(tensor) for _, tensor in outputs), graph.outputs, strict=False)) if known else {}
    named = [(name, tensor) for name, tensor in outputs if _differentiable(tensor)]
    named.sort(key=lambda item: item[0].rpartition(".")[2] != "loss")
    found = {id(tensor): _target(tensor, graph, values.get(id(tensor))) for _, tensor in named}
    return list(found.values())


def class_axis(tensor: Tensor, graph: Graph, op: Op | None) -> int:
    """The axis that holds the classes of an output; `op` is the one that made it.

    A softmax says it itself. Otherwise the last weighted op does: a linear map, embedding or recurrent op puts its
    features last, a convolution puts them second. Behind a reshape that hides it: the last axis of (N, C); of (N, A, B)
    the longer one; the second of images.
    """
    axis = _by_op(tensor.ndim, graph, op)
    if axis is not None:
        return axis
    if tensor.ndim <= 2:
        return max(0, tensor.ndim - 1)
    return (2 if tensor.shape[2] >= tensor.shape[1] else 1) if tensor.ndim == 3 else 1


def _by_op(dims: int, graph: Graph, op: Op | None) -> int | None:
    while op is not None and dims:
        dim = op.attrs.get("dim")
        if op.kind == "softmax" and isinstance(dim, int):
            return dim % dims
        if op.kind in ("linear", "recurrent", "embedding", "attention", "matmul"):
            return dims - 1
        if op.kind == "conv":
            return min(1, dims - 1)
        data = graph.data_inputs(op)
        if op.kind not in _PASSING or not data or len(graph.values[data[0]].shape) != dims:
            return None
        op = graph.op_of(data[0])
    return None


def guess(target: Target) -> tuple[str, str]:
    """The name of the loss that fits one output, and why: by its last op, then by its shape."""
    shape, function = target.output.shape, target.op.function if target.op is not None else ""
    if not target.output.ndim:
        return "own", "the model returns its own loss"
    if target.given is not None:
        return _by_given(target, target.given, function)
    for functions, name in _BY_FUNCTION:
        if function in functions:
            return name, f"the output ends in {function}"
    if target.output.is_complex():
        return "mse", "the output is complex"
    if target.output.ndim >= 4:
        return "mse", f"the output of shape {_text(shape)} is an image"
    if target.output.ndim > 1 and target.classes >= 2:
        return "ce", f"logits over {target.classes} classes"
    return "mse", f"one number a sample, shape {_text(shape)}"


def _by_given(target: Target, given: Tensor, function: str) -> tuple[str, str]:
    """The loss that compares the output with the user's own targets."""
    text = f"targets of shape {_text(given.shape)}"
    if target.labelled:
        names = {"log_softmax": "nll", "softmax": "nll_prob"}
        return names.get(function, "ce"), f"{text} are labels of {target.classes} classes"
    low, high = (float(bound) for bound in torch.aminmax(given.detach()))
    if function in UNIT and low >= 0.0 and high <= 1.0:
        return "bce", f"{text} are probabilities"
    if target.output.ndim and bool(((given == 0) | (given == 1)).all()) and function not in SYMMETRIC:
        return "bce_logits", f"{text} hold 0 and 1 only"
    return "mse", f"{text} are numbers like the output"


_BY_FUNCTION: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"log_softmax"}), "nll"),
    (frozenset({"softmax"}), "nll_prob"),
    (UNIT, "bce"),
    (frozenset({"logsigmoid"}), "unit"),
    (SYMMETRIC, "mse"),
)


def _text(shape: torch.Size) -> str:
    return "×".join(str(size) for size in shape)


def _differentiable(tensor: Tensor) -> bool:
    return tensor.requires_grad and (tensor.is_floating_point() or tensor.is_complex()) and tensor.numel() > 0


def _target(tensor: Tensor, graph: Graph, value: int | None) -> Target:
    op = None if value is None else next(iter(makers(graph, value)), None)
    if tensor.is_complex():
        return Target(torch.view_as_real(tensor), max(0, tensor.ndim - 1), op)
    return Target(tensor, class_axis(tensor, graph, None if value is None else graph.op_of(value)), op)


def _covering(candidates: list[Target], *, own_first: bool) -> list[Target]:
    """The first output (one the model made a loss itself when `own_first`), and those that reach further parameters."""
    if len(candidates) == 1:
        return candidates
    scalars = [t for t in candidates if not t.output.ndim] if own_first else []
    if scalars and len(scalars) == len(candidates):
        return scalars
    rest = [t for t in candidates if t.output.ndim]
    chosen: list[Target] = []
    covered: set[object] = set()
    for target in [*scalars, *rest] or candidates:
        leaves = _leaves(target.output)
        if not chosen or leaves - covered:
            chosen.append(target)
            covered |= leaves
    return chosen


def _leaves(tensor: Tensor) -> set[object]:
    """The autograd nodes of the leaves that a gradient of this tensor reaches."""
    seen: set[object] = set()
    waiting = [tensor.grad_fn]
    leaves: set[object] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        following = [following for following, _ in node.next_functions]
        leaves |= {node} if hasattr(node, "variable") else set()
        waiting += following
    return leaves


def _value(name: str, target: Target, random: Random) -> Tensor:
    try:
        return LOSSES[name].value(target, random)
    except (RuntimeError, ValueError, IndexError) as error:
        shape = _text(target.output.shape) or "scalar"
        raise ProbeError(
            f"loss {name} does not fit the output of shape {shape}: {error}", "choose one with --loss"
        ) from error


def _custom(name: str, output: object, candidates: list[Target], random: Random, given: object) -> Value:
    function = resolve(name)
    needed = [
        p for p in inspect.signature(function).parameters.values() if p.default is p.empty and p.kind in _POSITIONAL
    ]
    wanted = [given] if given is not None else [_wanted(first, random) for first in candidates[:1]]
    try:
        total = function(output, *wanted) if len(needed) > 1 else function(output)
    except Exception as error:
        raise ProbeError(f"loss {name} raised {type(error).__name__}: {error}") from error
    if not isinstance(total, Tensor) or total.numel() != 1:
        raise ProbeError(f"loss {name} returned {type(total).__name__}, not a tensor with one element")
    return Value(total.sum(), name, "told", None, candidates[0].output if candidates else None)


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def resolve(name: str) -> Function:
    """The function that "module:function" names; a class of losses is instantiated.

    Raises UsageError when it cannot be imported or is not callable.
    """
    module, _, attribute = name.partition(":")
    try:
        function = importlib.import_module(module)
        for part in attribute.split("."):
            function = getattr(function, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"loss {name!r} cannot be imported: {error}", "give module:function") from error
    if not callable(function):
        raise UsageError(f"loss {name!r} is not callable")
    return function().forward if isinstance(function, type) and issubclass(function, nn.Module) else function


def _wanted(target: Target, random: Random) -> Tensor:
    """A target for a loss of the user's own: labels where cross-entropy would fit, else numbers of the same shape."""
    name, _ = guess(target)
    if name in ("ce", "nll", "nll_prob"):
        kept = [size for axis, size in enumerate(target.output.shape) if axis != target.axis]
        return labels(target, random).reshape(kept)
    return bits(target, random) if name == "bce" else normal(target, random)


def _remarks(name: str, target: Target) -> tuple[str, ...]:
    if name == "bce":
        low, high = (float(bound) for bound in torch.aminmax(target.output.detach()))
        if low < 0.0 or high > 1.0:
            return (f"bce of an output in [{low:.3g}, {high:.3g}]: torch raises outside [0, 1], clamped here",)
    return ()
