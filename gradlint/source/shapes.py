"""The shape of a tensor expression, read from the source: `torch.randn(2, 3, 32, 32)`, `x.view(-1, 784)`."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from gradlint.source.constants import constant, normal
from gradlint.source.names import dotted

Origin = Literal["call", "summary", "dataset", "docstring", "comment"]
Dim = int | str


@dataclass(frozen=True)
class ShapeHint:
    """One tensor that the file says the model takes."""

    shape: tuple[Dim, ...]  # an int, or the symbol as written: "N", "batch", "T"
    dtype: str = ""  # "float32", "int64", … or "" when the file does not say
    high: int | None = None  # exclusive bound of integer entries (torch.randint)
    values: str = ""  # distribution of the entries when it was said: "~N(0,1)", "~U(0,1)"
    name: str = ""  # the argument it is passed as, "" for a positional argument
    origin: Origin = "call"
    line: int = 0


# Functions that make a tensor of the shape they are given: dtype and distribution of its entries.
MAKERS: Mapping[str, tuple[str, str]] = {
    "torch.randn": ("float32", "~N(0,1)"),
    "torch.rand": ("float32", "~U(0,1)"),
    "torch.zeros": ("float32", ""),
    "torch.ones": ("float32", ""),
    "torch.empty": ("float32", ""),
    "torch.Tensor": ("float32", ""),
    "torch.FloatTensor": ("float32", ""),
    "torch.LongTensor": ("int64", ""),
    "torch.cuda.FloatTensor": ("float32", ""),
    "numpy.random.randn": ("float32", "~N(0,1)"),
    "numpy.random.rand": ("float32", "~U(0,1)"),
    "numpy.zeros": ("float32", ""),
    "numpy.ones": ("float32", ""),
}

# Functions and methods that pass their tensor on in the same shape.
SAME = {
    "to",
    "cuda",
    "cpu",
    "clone",
    "detach",
    "contiguous",
    "requires_grad_",
    "requires_grad",
    "from_numpy",
    "Variable",
}
SAME |= {"tensor", "as_tensor", "pin_memory", "normal_", "uniform_", "abs", "sigmoid", "tanh", "softmax", "astype"}
DTYPES: Mapping[str, str] = {
    "float": "float32",
    "long": "int64",
    "double": "float64",
    "half": "float16",
    "int": "int32",
    "bool": "bool",
}


@dataclass(frozen=True)
class Shapes:
    """Reads shapes in one scope: `values` are what is assigned to its variables, `constants` the numbers it knows."""

    aliases: Mapping[str, str]
    constants: Mapping[str, object] = field(default_factory=dict)
    values: Mapping[str, ast.expr] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)  # what the file states by name: `args.nz`

    def of(self, node: ast.AST | None, depth: int = 8) -> ShapeHint | None:
        """The shape of a tensor expression, or None when the source does not tell."""
        if depth == 0:
            return None
        if isinstance(node, ast.Name) and node.id in self.values:
            return self.of(self.values[node.id], depth - 1)
        if isinstance(node, ast.BinOp):
            return self.of(node.left, depth - 1) or self.of(node.right, depth - 1)
        return self._call(node, depth) if isinstance(node, ast.Call) else None

    def plain(self, node: ast.AST | None) -> ShapeHint | None:
        """A shape written out as a tuple, as summaries take it."""
        value = self.values.get(node.id, node) if isinstance(node, ast.Name) else node
        if (
            isinstance(value, ast.Tuple | ast.List)
            and value.elts
            and isinstance(value.elts[0], ast.Tuple | ast.List | ast.Call)
        ):
            value = value.elts[0]  # one shape, or one tensor, for each input
        if isinstance(value, ast.Call):
            return self.of(value)
        dims = self._dims([value]) if isinstance(value, ast.Tuple | ast.List) else None
        return ShapeHint(dims) if dims else None

    def _call(self, call: ast.Call, depth: int) -> ShapeHint | None:
        path = dotted(call.func, self.aliases)
        if path in MAKERS:
            dtype, values = MAKERS[path]
            return self._made(self._dims(self._shape_arguments(call)), call, dtype, values)
        if path in ("torch.randint", "numpy.random.randint"):
            return self._integers(call)
        if path == "torch.arange" and len(call.args) == 1:
            return self._made(self._dims(call.args), call, "int64", "")
        name = call.func.attr if isinstance(call.func, ast.Attribute) else path.rsplit(".", 1)[-1]
        inner = call.args[0] if call.args and (isinstance(call.func, ast.Name) or path.startswith("torch.")) else None
        tensor = inner if inner is not None else call.func.value if isinstance(call.func, ast.Attribute) else None
        return self._derived(name, tensor, call, depth)

    def _derived(self, name: str, tensor: ast.expr | None, call: ast.Call, depth: int) -> ShapeHint | None:
        base = self.of(tensor, depth - 1)
        if name in ("view", "reshape"):
            return self._viewed(base, call)
        if base is None:
            return None
        if name in DTYPES:
            return replace(base, dtype=DTYPES[name])
        if name in SAME:
            return base
        change = CHANGES.get(name)
        shape = change(base.shape, [_integer(a, self.constants) for a in call.args]) if change else None
        return replace(base, shape=shape) if shape is not None else None

    def _viewed(self, base: ShapeHint | None, call: ast.Call) -> ShapeHint | None:
        dims = self._dims(call.args)
        if dims is None:
            return None
        free = [i for i, d in enumerate(dims) if d == -1]
        if free and free != [0]:
            sizes = base.shape if base else ()
            known = [d for d in dims if isinstance(d, int) and d > 0]
            if not sizes or not all(isinstance(d, int) for d in sizes) or len(known) < len(dims) - 1:
                rest = [d for d in sizes[1:] if isinstance(d, int)]
                if len(dims) != 2 or free != [1] or not rest or len(rest) != len(sizes) - 1:
                    return None
                return self._made(("N", math.prod(rest)), call, base.dtype if base else "", base.values if base else "")
            total = math.prod(d for d in sizes if isinstance(d, int))
            dims = tuple(total // math.prod(known) if d == -1 else d for d in dims)
        shape = tuple("N" if d == -1 else d for d in dims)
        return self._made(shape, call, base.dtype if base else "", base.values if base else "")

    def _integers(self, call: ast.Call) -> ShapeHint | None:
        size = next((k.value for k in call.keywords if k.arg == "size"), None)
        bounds = call.args if size is not None else call.args[:-1]
        dims = self._dims([size if size is not None else call.args[-1]]) if call.args or size else None
        high = next((k.value for k in call.keywords if k.arg == "high"), bounds[-1] if bounds else None)
        made = self._made(dims, call, "int64", "")
        return replace(made, high=_integer(high, self.constants)) if made else None

    def _made(self, dims: tuple[Dim, ...] | None, call: ast.Call, dtype: str, values: str) -> ShapeHint | None:
        if dims is None:
            return None
        said = next((k.value for k in call.keywords if k.arg == "dtype"), None)
        named = dotted(said, self.aliases).rsplit(".", 1)[-1]
        dtype = {"long": "int64", "float": "float32", "int": "int32"}.get(named, named) or dtype
        return ShapeHint(dims, dtype, None, values, line=call.lineno)

    def _shape_arguments(self, call: ast.Call) -> Sequence[ast.expr]:
        size = next((k.value for k in call.keywords if k.arg in ("size", "shape")), None)
        return [size] if size is not None else call.args

    def _dims(self, arguments: Sequence[ast.expr]) -> tuple[Dim, ...] | None:
        """The dimensions that arguments give: `2, 3, 32`, `(2, 3, 32)`, `*shape`, or a variable of one of these."""
        parts: list[Dim] = []
        for argument in arguments:
            inner = argument.value if isinstance(argument, ast.Starred) else argument
            held = self.values.get(inner.id) if isinstance(inner, ast.Name) else None
            if isinstance(held, ast.Tuple | ast.List) or (held is not None and _symbol(held) == "N"):
                inner = held
            if isinstance(inner, ast.Tuple | ast.List):
                nested = self._dims(inner.elts)
                if nested is None:
                    return None
                parts += nested
                continue
            value = self._known(inner)
            if isinstance(value, tuple | list):
                parts += [v for v in value if isinstance(v, int)]
            elif isinstance(value, int):
                parts.append(value)
            elif (symbol := _symbol(inner)) is not None:
                parts.append(symbol)
            else:
                return None
        return tuple(parts) if parts else None

    def _known(self, node: ast.expr, depth: int = 4) -> object:
        """The number (or numbers) that an expression stands for: a constant, `int(args.nz)`, a variable of one."""
        if isinstance(node, ast.Call) and dotted(node.func, self.aliases) == "int" and len(node.args) == 1:
            return self._known(node.args[0], depth)
        if isinstance(node, ast.Attribute):
            return self.options.get(normal(node.attr))
        if isinstance(node, ast.Name) and node.id not in self.constants and node.id in self.values and depth:
            return self._known(self.values[node.id], depth - 1)
        return _value(node, self.constants)


def _symbol(node: ast.expr) -> str | None:
    """The name of a dimension that has no number: `batch_size`, `x.size(0)`, `len(x)`."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    text = ast.unparse(node)
    return "N" if re.fullmatch(r"\w+(\.\w+)*\.(size\(0\)|shape\[0\])|len\(\w+\)", text) else None


def _value(node: ast.AST | None, constants: Mapping[str, object]) -> object:
    try:
        return constant(node, constants)
    except ValueError:
        return None


def _integer(node: ast.AST | None, constants: Mapping[str, object]) -> int | None:
    value = _value(node, constants)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


Change = Callable[[tuple[Dim, ...], list[int | None]], tuple[Dim, ...] | None]


def _unsqueeze(shape: tuple[Dim, ...], dims: list[int | None]) -> tuple[Dim, ...] | None:
    place = dims[-1] if dims else None
    if place is None:
        return None
    place = place + len(shape) + 1 if place < 0 else place
    return (*shape[:place], 1, *shape[place:])


def _squeeze(shape: tuple[Dim, ...], dims: list[int | None]) -> tuple[Dim, ...] | None:
    if not dims or dims[-1] is None:
        return tuple(d for d in shape if d != 1)
    return tuple(d for i, d in enumerate(shape) if i != dims[-1] % len(shape) or d != 1)


def _permute(shape: tuple[Dim, ...], dims: list[int | None]) -> tuple[Dim, ...] | None:
    order = [d for d in dims if d is not None]
    return tuple(shape[d] for d in order) if sorted(order) == list(range(len(shape))) else None


def _flatten(shape: tuple[Dim, ...], dims: list[int | None]) -> tuple[Dim, ...] | None:
    start = dims[-1] if dims and dims[-1] is not None else 0
    rest = [d for d in shape[start:] if isinstance(d, int)]
    return (*shape[:start], math.prod(rest)) if len(rest) == len(shape) - start else None


CHANGES: Mapping[str, Change] = {"unsqueeze": _unsqueeze, "squeeze": _squeeze, "permute": _permute, "flatten": _flatten}
