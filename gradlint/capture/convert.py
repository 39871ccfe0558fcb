"""From a recording to the intermediate representation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any

from gradlint.capture import vocabulary
from gradlint.capture.arguments import Arguments, dtype_name, references
from gradlint.capture.moments import FOLLOWED_UP_TO, VALUES_UP_TO
from gradlint.capture.record import REBASED, Call, Leaf, Meta, Ref, span
from gradlint.capture.row import Entry
from gradlint.capture.statistics import statistics
from gradlint.capture.weights import Weights
from gradlint.error import GradlintError
from gradlint.graph.ir import Coverage, Graph, Module, Op, Origin, Param, Value

# In a graph without these the signal follows every unit on its way, for which it needs the weights' entries.
NORMALISED = frozenset({"norm", "attention", "recurrent", "embedding"})
MANY = 400  # parameters of such a graph whose entries are kept

if TYPE_CHECKING:
    from torch import nn

    from gradlint.capture.fixed import Following
    from gradlint.capture.recording import Recording


@dataclass(frozen=True)
class Run:
    """What is told of the run beside its calls, as in a `Recording`."""

    called: Mapping[str, int]
    module_types: Mapping[str, str]
    training: bool
    method: str
    notes: tuple[str, ...]
    absent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Known:
    """The paths of the model's modules and tensors, as in `gradlint.capture.naming.Names`."""

    params: Mapping[str, Any]
    tensors: Mapping[int, list[str]]
    tree: Mapping[str, nn.Module] = field(default_factory=dict)
    unregistered: Collection[str] = ()


def to_graph(recording: Recording) -> Graph:
    """The recorded run as a graph; op i is call i.

    Raises GradlintError when the run was not recorded.
    """
    if recording.tape is None:
        raise GradlintError("the run was not recorded", hint="call run(..., record=True)")
    tape, names = recording.tape, recording.tape.names
    told = (recording.training, recording.method, recording.notes, recording.absent)
    run = Run(recording.called, recording.module_types, *told)
    known = Known(names.params, names.tensors, names.tree, names.unregistered)
    outputs = [(name, ref) for (name, _), ref in zip(recording.outputs, tape.outputs, strict=True)]
    return converted(run, known, tape.steps, outputs, tape.hidden, tape.following, tape.reads)


def converted(
    run: Run,
    names: Known,
    steps: Sequence[Leaf | Call],
    outputs: Sequence[tuple[str, Ref]],
    hidden: int = 0,
    following: Following | None = None,
    reads: Sequence[Ref] = (),
) -> Graph:
    """The calls as a graph; `outputs` are the model's with their names, `following` knows what depends on no input."""
    conversion = _Conversion(run, names)
    graph = conversion.graph(steps, outputs, hidden, following)
    return replace(graph, reads=frozenset(conversion.value(ref) for ref in reads)) if reads else graph


@dataclass
class _Conversion:
    recording: Run
    names: Known
    values: list[Value] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    notes: dict[str, None] = field(default_factory=dict)
    _ids: dict[tuple[int, int], int] = field(default_factory=dict)

    def graph(
        self, steps: Sequence[Leaf | Call], outputs: Sequence[tuple[str, Ref]], hidden: int, following: Following | None
    ) -> Graph:
        modules = self._modules()
        self.spans = {module.path: module.constructed for module in modules}
        for step in steps:
            if isinstance(step, Leaf):
                self._leaf(step)
            else:
                self._call(step)
        ops = tuple(Weights(self.values, self.ops).refine())
        params = self._params(ops)
        return Graph(
            ops=ops,
            values=self._consumed(ops),
            params=params,
            inputs=tuple(self.inputs),
            outputs=tuple(self.value(ref) for _, ref in outputs),
            modules=self._called(modules, ops),
            coverage=self._coverage(hidden),
            output_names=tuple(name for name, _ in outputs),
            training=self.recording.training,
            fixed={self.value(ref): found for ref, found in following.found.items()} if following else {},
            seen={self.value(ref): found for ref, found in following.seen.items()} if following else {},
        )

    def _leaf(self, leaf: Leaf) -> None:
        value = self._add((id(leaf), 0), leaf.meta, leaf.origin, leaf.path, None)
        if leaf.origin == "input":
            self.inputs.append(value)

    def _add(self, key: tuple[int, int], meta: Meta, origin: Origin, name: str, producer: int | None) -> int:
        number = self._ids[key] = len(self.values)
        dtype = dtype_name(meta.dtype)
        self.values.append(Value(number, meta.shape, dtype, origin, name, producer, (), meta.requires_grad))
        return number

    def value(self, ref: Ref) -> int:
        return self._ids[(id(ref.node), ref.output)]

    def _call(self, call: Call) -> None:
        short = call.name.removesuffix(".__get__").rpartition(".")[2]
        if call.name.startswith("aten."):
            short = call.name.split(".")[1]
        entry = None if call.custom else vocabulary.lookup(call.name, short)
        parameters = _parameters(entry, call)
        bound = vocabulary.bind(parameters, call.args) | call.kwargs
        if entry is not None and (other := vocabulary.overloaded(entry, bound)) is not entry:
            entry, parameters = other, other.parameters
            bound = vocabulary.bind(parameters, call.args) | call.kwargs
        operands = list(_operands(parameters, call))
        attrs: dict[str, object] = {"function": call.name}
        kind = "custom" if call.custom else "other"
        if entry is not None:
            kind = entry.kind
            attrs = self._attributes(entry, Arguments(short.rstrip("_") or short, bound, call.outputs))
        elif not call.custom:
            self.unknown[call.name] += 1
        if call.curve is not None:
            attrs["curve"] = call.curve
        inputs = tuple(self.value(operand) for _, operand in operands)
        outputs = [self._add((id(call), n), meta, "op", "", call.index) for n, meta in enumerate(call.outputs)]
        if call.rebased is not None:
            outputs.append(self._add((id(call), REBASED), call.rebased, "op", "", call.index))
        self.ops.append(
            Op(
                index=call.index,
                kind=kind,
                name=call.name,
                inputs=inputs,
                roles=_roles([role for role, _ in operands], attrs if kind == "recurrent" else {}),
                outputs=tuple(outputs),
                params=self._param_paths(inputs),
                module_path=call.path,
                module_type=call.type,
                span=span(call.place),
                constructed=self.spans.get(call.path),
                attrs=attrs,
                inplace=call.inplace,
                grad_enabled=call.grad_enabled,
            )
        )

    def _attributes(self, entry: Entry, call: Arguments) -> dict[str, object]:
        try:
            return vocabulary.attributes(entry, call)
        except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            self.notes[f"arguments of {call.short} not understood: {error}"] = None
            return {"function": entry.function}

    def _param_paths(self, inputs: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(self.values[value].name for value in inputs if self.values[value].origin == "param")

    def _consumed(self, ops: tuple[Op, ...]) -> tuple[Value, ...]:
        consumers: list[list[int]] = [[] for _ in self.values]
        for op in ops:
            for value in dict.fromkeys(op.inputs):
                consumers[value].append(op.index)
        return tuple(replace(v, consumers=tuple(found)) for v, found in zip(self.values, consumers, strict=True))

    def _params(self, ops: tuple[Op, ...]) -> dict[str, Param]:
        fans = _fans(ops, self.values)
        plain = not any(op.kind in NORMALISED for op in ops)
        values = FOLLOWED_UP_TO if plain and len(self.names.params) <= MANY else VALUES_UP_TO
        found = {}
        for path, tensor in self.names.params.items():
            param = statistics(path, _whole(tensor), fans.get(path), values)
            if getattr(tensor, "is_meta", False):
                from gradlint.capture.meta import as_drawn  # needs torch, which a graph from a file does without

                param = as_drawn(param, self.names.tree.get(owner(path)))
            shared = tuple(self.names.tensors[id(tensor)][1:])
            found[path] = replace(param, shared_by=shared, constructed=self.spans.get(owner(path)))
        return found

    def _modules(self) -> tuple[Module, ...]:
        types, tree = self.recording.module_types, self.names.tree
        described = (
            Module(path, name.rpartition(".")[2], called=1, params=self._own(path), builtin=_is_torch(name))
            for path, name in types.items()
            if path not in tree
        )
        return (*(self._module(path, module) for path, module in tree.items()), *described)

    def _own(self, path: str) -> tuple[str, ...]:
        """The parameters whose paths lie right below a module's."""
        return tuple(param for param in self.names.params if owner(param) == path)

    def _module(self, path: str, module: nn.Module) -> Module:
        from gradlint.capture.construction import constructed  # both need torch, as whoever has modules does
        from gradlint.capture.sharded import class_of

        cls, described = class_of(module), self.recording.module_types.get(path)
        name = described or f"{cls.__module__}.{cls.__name__}"
        own = (self.names.tensors[id(p)][0] for p in module.parameters(recurse=False) if id(p) in self.names.tensors)
        return Module(
            path=path,
            type=name.rpartition(".")[2],
            called=self.recording.called.get(path, int(described is not None)),
            params=tuple(own),
            constructed=constructed(module),
            builtin=_is_torch(name),
            registered=path not in self.names.unregistered,
        )

    def _called(self, modules: tuple[Module, ...], ops: tuple[Op, ...]) -> tuple[Module, ...]:
        """A module whose own parameters are read without a call of it (MultiheadAttention.out_proj) was reached too."""
        read = {path for op in ops for path in op.params}
        return tuple(
            replace(module, called=1) if not module.called and read.intersection(module.params) else module
            for module in modules
        )

    def _coverage(self, hidden: int) -> Coverage:
        notes = [*self.recording.notes, *self.notes]
        if hidden:
            notes.append(f"{hidden} values came from code that shows no torch calls")
        unknown = tuple(sorted(self.unknown.items()))
        return Coverage(self.recording.method, len(self.ops), unknown, tuple(notes), self.recording.absent)


def owner(path: str) -> str:
    """The path of the module that a parameter path belongs to."""
    return path.rpartition(".")[0]


def _is_torch(name: str) -> bool:
    return name.split(".")[0] == "torch"


def _parameters(entry: Entry | None, call: Call) -> tuple[str, ...]:
    names = entry.parameters if entry is not None else ("input", "other")
    packed = entry is not None and entry.kind == "recurrent" and isinstance((*call.args, *[None] * 4)[3], list)
    return vocabulary.PACKED if packed else names


def _operands(parameters: tuple[str, ...], call: Call) -> Iterator[tuple[str, Ref]]:
    """Every tensor argument with its role."""
    for position, value in enumerate(call.args):
        name = _parameter(parameters, position)
        for given, operand in references(name, value):
            yield vocabulary.role(given), operand
    for key, value in call.kwargs.items():
        for given, operand in references(key, value):
            yield vocabulary.role(given), operand


def _parameter(parameters: tuple[str, ...], position: int) -> str:
    """The name of a positional argument; those that a last parameter "*name" takes are "name", "name.1" …"""
    last = parameters[-1]
    beyond = position - len(parameters) + 1
    if last.startswith("*") and beyond >= 0:
        return f"{last[1:]}.{beyond}" if beyond else last[1:]
    return parameters[position] if beyond <= 0 else f"arg{position}"


def _roles(roles: list[str], recurrent: Mapping[str, object]) -> tuple[str, ...]:
    """The first operand is the "input" where no other one is; a recurrent network's weights get their own names."""
    places = [place for place, role in enumerate(roles) if role.partition(".")[0] == "params"]
    if places:
        given = vocabulary.recurrent_weights(
            len(places),
            biases=bool(recurrent["biases"]),
            bidirectional=bool(recurrent["bidirectional"]),
            layers=int(str(recurrent["layers"])),
        )
        for place, name in zip(places, given, strict=True):
            roles[place] = name
    if roles and "input" not in roles and roles[0] == "other":
        return ("input", *roles[1:])
    return tuple(roles)


def _fans(ops: tuple[Op, ...], values: list[Value]) -> dict[str, tuple[int, int]]:
    """Fan-in and fan-out of weights whose use differs from their shape: (in, out) layout, groups, transposed."""
    found = {}
    for op in ops:
        for value, role in zip(op.inputs, op.roles, strict=True):
            weight = values[value]
            if role == "weight" and weight.origin == "param" and len(weight.shape) >= 2:
                used = _fan_of_use(op, weight.shape)
                if used is not None:
                    found[weight.name] = used
    return found


def _fan_of_use(op: Op, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Terms in the sum behind one output and inputs that one entry of the input feeds."""
    if op.kind == "linear" and op.attrs.get("layout") == "io":
        return shape[-2], shape[-1]
    if op.kind != "conv":
        return None
    taps, groups = prod(shape[2:]), int(str(op.attrs.get("groups", 1)))
    if not op.attrs.get("transposed"):
        return shape[1] * taps, max(shape[0] // groups, 1) * taps
    stride = op.attrs.get("stride", ())
    step = prod(stride) if isinstance(stride, tuple) else 1  # only every stride-th tap meets an output
    return max(shape[0] // groups * taps // step, 1), shape[1] * taps


def _whole(tensor: Any) -> Any:
    """A parameter that FSDP spreads over processes with the parts of all of them; every process must ask."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
