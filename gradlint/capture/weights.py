"""Which products are layers: a matrix product with something computed from parameters alone is "linear"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from gradlint.graph.ir import Op, Value

_TRANSPOSES = frozenset({"permute"})
_SAME = frozenset({"copy"})
_MATRIX = frozenset({"matmul", "einsum", "addmm", "baddbmm"})


@dataclass
class Weights:
    """Walks the ops once; knows for each value whether it depends on parameters and on nothing that was fed in."""

    values: list[Value]
    ops: list[Op]
    _weight: set[int] = field(default_factory=set)
    _fixed: set[int] = field(default_factory=set)
    _source: dict[int, tuple[int, bool]] = field(default_factory=dict)  # value → (parameter, transposed)

    def refine(self) -> Iterator[Op]:
        """The ops, with products by a weight turned into kind "linear"."""
        for value in self.values:
            if value.origin == "param" or (value.origin == "constant" and value.requires_grad):
                self._weight.add(value.id)  # the latter is a parameter that the model has not registered
                self._source[value.id] = (value.id, False)
            elif value.origin in ("buffer", "constant"):
                self._fixed.add(value.id)
        for op in self.ops:
            refined = self._refine(op)
            self._follow(refined)
            yield refined

    def is_weight(self, value: int) -> bool:
        """Whether the value is a parameter or computed from parameters alone."""
        return value in self._weight

    def _follow(self, op: Op) -> None:
        """Note what the op's outputs depend on."""
        if op.kind == "create" or not op.inputs:
            self._fixed.update(op.outputs)
        elif all(value in self._weight or value in self._fixed for value in op.inputs):
            known = self._weight if any(value in self._weight for value in op.inputs) else self._fixed
            known.update(op.outputs)
        source = self._source.get(op.inputs[0]) if op.inputs else None
        if source is not None and len(op.outputs) == 1:
            self._trace(op, source[0], turned=source[1])

    def _trace(self, op: Op, param: int, *, turned: bool) -> None:
        shape = self.values[op.outputs[0]].shape
        if op.kind in _SAME and op.function != "detach" and shape == self.values[op.inputs[0]].shape:
            self._source[op.outputs[0]] = (param, turned)
        elif op.kind in _TRANSPOSES and len(shape) == 2 and op.attrs.get("dims") == (1, 0):
            self._source[op.outputs[0]] = (param, not turned)

    def _refine(self, op: Op) -> Op:
        if op.kind == "linear":
            return self._as_linear(op, "io" if op.function == "addmm" else "oi")
        if op.kind != "matmul" or op.function not in _MATRIX:
            return op
        places = [place for place, role in enumerate(op.roles) if role in ("input", "other")]
        if len(places) != 2:
            return op
        data, weight = (self._usable(op, place) for place in places)
        if data == weight:
            return op
        return self._product(op, places, second=weight)

    def _usable(self, op: Op, place: int) -> bool:
        value = op.inputs[place]
        return value in self._weight and len(self.values[value].shape) >= 2

    def _product(self, op: Op, places: list[int], *, second: bool) -> Op:
        """`x @ W` has layout "io"; `W @ x` mixes the second last axis of x and has "left": True."""
        roles = list(op.roles)
        roles[places[0]], roles[places[1]] = ("input", "weight") if second else ("weight", "input")
        attrs = dict(op.attrs) if second else dict(op.attrs) | {"left": True}
        return self._as_linear(replace(op, kind="linear", roles=tuple(roles), attrs=attrs), "io" if second else "oi")

    def _as_linear(self, op: Op, layout: str) -> Op:
        """Look through transposes and copies to the parameter itself, so that the layout says how it is used."""
        place = op.roles.index("weight") if "weight" in op.roles else None
        if place is None and op.function == "addmm":
            if op.inputs[op.roles.index("other")] not in self._weight:
                return replace(op, kind="matmul")
            roles = tuple("weight" if role == "other" else role for role in op.roles)
            return self._as_linear(replace(op, roles=roles), layout)
        if place is None:
            return op
        param, turned = self._source.get(op.inputs[place], (op.inputs[place], False))
        layout = layout if not turned else "oi" if layout == "io" else "io"
        inputs = (*op.inputs[:place], param, *op.inputs[place + 1 :])
        paths = tuple(self.values[value].name for value in inputs if self.values[value].origin == "param")
        return replace(op, inputs=inputs, params=paths, attrs=dict(op.attrs) | {"layout": layout})
