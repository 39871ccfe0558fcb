"""What an exporter took apart, put together again: linear layers, GELU, SiLU, norms and attention."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gradlint.onnx.program import Program, Step, Symbol

Found = list[Step] | None
ROOT_HALF = math.sqrt(0.5)
GATED = {"sigmoid": "silu", "hardsigmoid": "hardswish"}  # x times the function of x


def recognised(program: Program) -> Program:
    """The program with the calls of each known pattern replaced by the one call that they are; its outputs stay."""
    steps = list(program.steps)
    for pattern in PATTERNS:
        walk = _Walk(steps, program.outputs)
        made = [pattern(walk, step) for step in steps]
        steps = [part for step, found in zip(steps, made, strict=True) for part in (found or [step])]
        steps = _alive(steps, program.outputs)
    return replace(program, steps=tuple(steps))


def _alive(steps: Sequence[Step], outputs: Sequence[Symbol]) -> list[Step]:
    """The steps that an output depends on."""
    wanted, kept = {id(symbol) for symbol in outputs}, list[Step]()
    for step in reversed(steps):
        if any(id(symbol) in wanted for symbol in step.outputs if symbol is not None):
            wanted |= {id(symbol) for symbol in step.reads}
            kept.append(step)
    return kept[::-1]


@dataclass
class _Walk:
    """Looks up what made a tensor, and how many calls read it."""

    steps: Sequence[Step]
    outputs: Sequence[Symbol]

    def __post_init__(self) -> None:
        self.makers = {id(s): step for step in self.steps for s in step.outputs if s is not None}
        self.uses = Counter(id(symbol) for step in self.steps for symbol in step.reads)
        self.uses.update(id(symbol) for symbol in self.outputs)

    def maker(self, value: Any, *names: str) -> Step | None:
        """The call of one of these functions that made the value."""
        step = self.makers.get(id(value)) if isinstance(value, Symbol) else None
        return step if step is not None and short(step) in names else None

    def factors(self, step: Step) -> Iterator[Any]:
        """Everything that a product multiplies: numbers, and tensors that are no product used only here."""
        for place, value in enumerate(step.args[:2]):
            inner = self.maker(value, "mul", "div") if self.uses[id(value)] == 1 else None
            if short(step) == "div" and place == 1:
                yield 1 / value if isinstance(value, (int, float)) and value else _Inverse(value)
            elif inner is not None:
                yield from self.factors(inner)
            else:
                yield value


@dataclass(frozen=True)
class _Inverse:
    """A tensor that is divided by."""

    value: Any


def short(step: Step) -> str:
    """The last part of the function's name."""
    return step.function.rpartition(".")[2]


def _call(step: Step, function: str, *args: Any, **kwargs: Any) -> list[Step]:
    return [Step(f"torch.nn.functional.{function}", args, kwargs, step.outputs[:1], step.place)]


def _near(value: Any, wanted: float, tolerance: float = 1e-3) -> bool:
    return isinstance(value, (int, float)) and abs(value - wanted) <= tolerance * max(abs(wanted), 1e-9)


def _weight(value: Any, rank: int) -> bool:
    return isinstance(value, Symbol) and value.kind == "param" and value.rank == rank


def _split(pair: Sequence[Any], fits: Callable[[Any], bool]) -> tuple[Any, Any] | None:
    """(the other one, the one that fits) of two operands, in either order."""
    first, second = pair[0], pair[1]
    return (first, second) if fits(second) else (second, first) if fits(first) else None


# -- linear layers -----------------------------------------------------------------------------------------------------


def linear(walk: _Walk, step: Step) -> Found:
    """A product with a matrix of weights: the matrix is kept as torch has it, out × in."""
    if step.function != "torch.matmul" or not isinstance(step.args[0], Symbol) or (step.args[0].rank or 0) < 2:
        return None
    x, matrix = step.args[:2]
    turned = walk.maker(matrix, "t", "transpose", "permute")
    if turned is not None and _weight(turned.args[0], 2):
        return _call(step, "linear", x, turned.args[0], None)
    if not _weight(matrix, 2) or walk.uses[id(matrix)] > 1 or matrix.array is None or x.kind == "param":
        return None
    rows, columns = matrix.shape
    weight = Symbol(matrix.name, "param", (columns, rows), matrix.dtype, array=matrix.array.T)
    return _call(step, "linear", x, weight, None)


def biased(walk: _Walk, step: Step) -> Found:
    """A bias added to a product with a weight."""
    if step.function != "torch.add":
        return None
    pair = _split(step.args, lambda value: _weight(value, 1))
    product = walk.maker(pair[0], "linear") if pair else None
    if pair is None or product is None or product.args[2] is not None or walk.uses[id(pair[0])] > 1:
        return None
    if pair[1].shape != (product.args[1].shape or ())[:1]:
        return None
    return [replace(product, args=(*product.args[:2], pair[1]), outputs=step.outputs)]


# -- activations -------------------------------------------------------------------------------------------------------


def gelu(walk: _Walk, step: Step) -> Found:
    """½ x (1 + erf(x/√2)), or with tanh(√(2/π)(x + 0.044715 x³)) in place of erf (Hendrycks & Gimpel 2016)."""
    if short(step) not in ("mul", "div"):
        return None
    factors = list(walk.factors(step))
    numbers = [f for f in factors if isinstance(f, (int, float))]
    tensors = [f for f in factors if not isinstance(f, (int, float))]
    if len(tensors) != 2 or not _near(math.prod(numbers), 0.5):
        return None
    for x, gate in (tensors, tensors[::-1]):
        added = walk.maker(gate, "add")
        pair = _split(added.args, lambda value: _near(value, 1.0)) if added else None
        function = walk.maker(pair[0], "erf", "tanh") if pair else None
        if function is not None and _is_gelu(walk, function, x):
            return _call(step, "gelu", x, approximate="none" if short(function) == "erf" else "tanh")
    return None


def _is_gelu(walk: _Walk, function: Step, x: Any) -> bool:
    scaled = walk.maker(function.args[0], "mul", "div")
    if scaled is None:
        return False
    factors = list(walk.factors(scaled))
    number = math.prod(f for f in factors if isinstance(f, (int, float)))
    (inner, *more) = [f for f in factors if not isinstance(f, (int, float))] or [None]
    if more:
        return False
    if short(function) == "erf":
        return inner is x and _near(number, ROOT_HALF)
    added = walk.maker(inner, "add")
    return added is not None and any(value is x for value in added.args) and _near(number, math.sqrt(2 / math.pi))


def gated(walk: _Walk, step: Step) -> Found:
    """x σ(x) is SiLU; with the piecewise linear σ it is hardswish; x tanh(softplus(x)) is Mish."""
    if step.function != "torch.mul" or not all(isinstance(value, Symbol) for value in step.args[:2]):
        return None
    for x, gate in (step.args[:2], step.args[:2][::-1]):
        function = walk.maker(gate, *GATED, "tanh")
        if function is None:
            continue
        soft = walk.maker(function.args[0], "softplus")
        if short(function) in GATED and function.args[0] is x:
            return _call(step, GATED[short(function)], x)
        if short(function) == "tanh" and soft is not None and soft.args[0] is x:
            return _call(step, "mish", x)
    return None


# -- norms -------------------------------------------------------------------------------------------------------------


def norm(walk: _Walk, step: Step) -> Found:
    """(x - mean) / √(var + ε), and x / √(mean x² + ε), over the last axis."""
    if short(step) not in ("mul", "div"):
        return None
    tensors = [f for f in walk.factors(step) if not isinstance(f, (int, float))]
    if len(tensors) != 2 or len(list(walk.factors(step))) != 2:
        return None
    for centred, root in (tensors, tensors[::-1]):
        found = _spread(walk, root)
        if found is None or not isinstance(centred, Symbol) or centred.shape is None:
            continue
        squared, epsilon = found
        if squared is not centred:
            continue
        minus = walk.maker(centred, "sub")
        mean = walk.maker(minus.args[1], "mean") if minus else None
        width = centred.shape[-1:]
        if minus is not None and mean is not None and mean.args[0] is minus.args[0] and _is_last(mean):
            return _call(step, "layer_norm", minus.args[0], width, None, None, epsilon)
        return _call(step, "rms_norm", centred, width, None, epsilon)
    return None


def _spread(walk: _Walk, root: Any) -> tuple[Symbol, float] | None:
    """(what is squared, ε) of 1/√(mean square + ε)."""
    if isinstance(root, _Inverse):
        inner = walk.maker(root.value, "sqrt")
    else:
        outer = walk.maker(root, "reciprocal", "__rtruediv__")
        if outer is None or (short(outer) == "__rtruediv__" and not _near(outer.args[1], 1.0)):
            return None
        inner = walk.maker(outer.args[0], "sqrt")
    added = walk.maker(inner.args[0], "add") if inner else None
    pair = _split(added.args, lambda value: isinstance(value, float) and 0 < value < 0.1) if added else None
    mean = walk.maker(pair[0], "mean") if pair else None
    square = walk.maker(mean.args[0], "pow", "mul", "square") if mean is not None and _is_last(mean) else None
    if square is None or pair is None:
        return None
    twice = short(square) == "square" or square.args[1] is square.args[0] or _near(square.args[1], 2.0)
    return (square.args[0], pair[1]) if twice else None


def _is_last(mean: Step) -> bool:
    x = mean.args[0]
    return isinstance(x, Symbol) and x.rank is not None and tuple(mean.args[1]) in ((x.rank - 1,), (-1,))


def scaled(walk: _Walk, step: Step) -> Found:
    """The gain of a norm that was put together."""
    return _affine(walk, step, "torch.mul", {"layer_norm": 2, "rms_norm": 2})


def shifted(walk: _Walk, step: Step) -> Found:
    """The offset of a norm that was put together."""
    return _affine(walk, step, "torch.add", {"layer_norm": 3})


def _affine(walk: _Walk, step: Step, function: str, places: dict[str, int]) -> Found:
    pair = _split(step.args, lambda value: _weight(value, 1)) if step.function == function else None
    made = walk.maker(pair[0], *places) if pair else None
    if made is None or pair is None or walk.uses[id(pair[0])] > 1 or pair[1].shape != made.args[1]:
        return None
    place = places[short(made)]
    if made.args[place] is not None or (place == 3 and made.args[2] is None):
        return None
    return [replace(made, args=(*made.args[:place], pair[1], *made.args[place + 1 :]), outputs=step.outputs)]


# -- attention ---------------------------------------------------------------------------------------------------------


def attention(walk: _Walk, step: Step) -> Found:
    """softmax(s q kᵀ + mask) v, the scale taken from wherever it was put."""
    soft = _softmax(walk, step.args[0]) if step.function == "torch.matmul" else None
    value = step.args[1] if soft else None
    if soft is None or not isinstance(value, Symbol) or value.shape is None or len(value.shape) < 3:
        return None
    scores, mask = soft.args[0], None
    added = walk.maker(scores, "add")
    if added is not None:
        pair = _split(added.args, lambda each: walk.maker(each, "matmul", "mul", "div") is None)
        if pair is None:
            return None
        scores, mask = pair
    product, scale = _unscaled(walk, scores)
    if product is None:
        return None
    (query, by_query), (key, by_key) = (_bare(walk, operand) for operand in product.args[:2])
    if not isinstance(query, Symbol) or not isinstance(key, Symbol) or query.shape is None or key.shape is None:
        return None
    if not len(query.shape) == len(key.shape) == len(value.shape) or key.shape[-1] != value.shape[-2]:
        return None
    if mask is not None and not isinstance(mask, Symbol):
        return None
    turned = Symbol(
        f"{step.outputs[0].name if step.outputs[0] else ''}.key",
        "op",
        (*key.shape[:-2], key.shape[-1], key.shape[-2]),
        key.dtype,
    )
    back = Step("torch.Tensor.transpose", (key, -2, -1), {}, (turned,), step.place)
    made = _call(
        step, "scaled_dot_product_attention", query, turned, value, mask, 0.0, False, scale=scale * by_query * by_key
    )
    return [back, *made]


def _softmax(walk: _Walk, value: Any) -> Step | None:
    """The softmax behind attention weights, looking through the guard for rows that are masked whole."""
    guard = walk.maker(value, "where")
    if guard is not None:
        value = guard.args[2]
        if (
            not (_near(guard.args[1], 0.0) or isinstance(guard.args[1], Symbol))
            or walk.maker(guard.args[0], "isnan") is None
        ):
            return None
    found = walk.maker(value, "softmax")
    last = found.args[1] if found else None
    return found if found is not None and last in (-1, (found.args[0].rank or 0) - 1) else None


def _unscaled(walk: _Walk, scores: Any) -> tuple[Step | None, float]:
    tensor, scale = _bare(walk, scores)
    return walk.maker(tensor, "matmul"), scale


def _bare(walk: _Walk, value: Any) -> tuple[Any, float]:
    """(the tensor, the number it is multiplied by)."""
    step = walk.maker(value, "mul", "div")
    if step is None or walk.uses[id(value)] > 1 or not isinstance(step.args[1], (int, float)):
        return value, 1.0
    number = step.args[1]
    return step.args[0], float(number if short(step) == "mul" else 1 / number if number else math.inf)


PATTERNS = (linear, biased, gelu, gated, norm, scaled, shifted, attention)
