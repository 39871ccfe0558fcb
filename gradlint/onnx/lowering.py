"""From a file's nodes to torch-level calls: names resolved, functions expanded, what is known beforehand computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gradlint.error import LoadError
from gradlint.onnx.attributes import attributes
from gradlint.onnx.file import DEEPEST, MOST_NODES, File, version
from gradlint.onnx.folding import folded, moved
from gradlint.onnx.locations import place
from gradlint.onnx.node import Emitter, Node, Spec, UnknownEntriesError, UnsupportedError
from gradlint.onnx.program import Array, Bundle, Place, Step, Symbol
from gradlint.onnx.shapes import Described, MisfitError, described, infer, schema
from gradlint.onnx.table import HANDLERS

Held = Symbol | Bundle | None


@dataclass
class Scope:
    """The tensors of one graph by name; those of the graphs around it are seen too."""

    names: dict[str, Held] = field(default_factory=dict)
    around: Scope | None = None

    def find(self, name: str) -> Held:
        """The tensor of that name. Raises LoadError when there is none."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.around
        raise LoadError(f"the graph reads {name!r}, which nothing produces before it", "is the graph cyclic, or cut?")

    def flat(self) -> dict[str, Held]:
        """Every tensor that can be seen."""
        return {**(self.around.flat() if self.around else {}), **self.names}


@dataclass
class Writer:
    """Writes the calls down."""

    steps: list[Step] = field(default_factory=list)

    def emit(
        self,
        function: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        outputs: list[Described],
        at: Place,
        late: Any = None,
    ) -> list[Symbol]:
        """Append one step and give its results."""
        symbols = [Symbol(f"{len(self.steps)}.{i}", "op", shape, dtype) for i, (shape, dtype) in enumerate(outputs)]
        self.steps.append(Step(function, args, kwargs, tuple(symbols), at, late))
        return symbols

    def entries(self, symbol: Symbol) -> Array:
        """The entries, where they are known."""
        if symbol.data is None:
            raise UnknownEntriesError(symbol.name)
        return symbol.data


@dataclass(frozen=True)
class Late:
    """A node that is interpreted during a run, with the names of the tensors that its step is given, in order."""

    lowering: Lowering
    spec: Spec
    names: tuple[str, ...]

    def run(self, emitter: Emitter, given: Sequence[Symbol]) -> list[Held]:
        """The node's outputs, its calls made by the emitter."""
        scope = Scope(dict(zip(self.names, given, strict=True)))
        return self.lowering.handled(self.spec, scope, emitter, [(None, "") for _ in self.spec.outputs])


@dataclass
class Lowering:
    """Lowers the graphs of one file. `notes` collects what must be said; `guessed`: sizes may cause a misfit."""

    file: File
    guessed: bool = False
    declared: dict[str, Described] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    visited: int = 0
    _depth: int = 0

    def __post_init__(self) -> None:
        model = self.file.model
        self.functions = {(f.domain, f.name): f for f in model.functions}
        self.versions = {o.domain: o.version for o in model.opset_import}
        self.declared |= {v.name: described(v.type) for v in (*model.graph.value_info, *model.graph.output)}

    def nodes(
        self, nodes: Sequence[Any], scope: Scope, emitter: Emitter, given: Mapping[str, Any], imports: Sequence[Any]
    ) -> None:
        """Lower nodes in order; `given` are the attributes of the function call that they stand in."""
        for proto in nodes:
            self.visited += 1
            if self.visited > MOST_NODES:
                raise LoadError(f"the graph expands to more than {MOST_NODES} nodes")
            spec = self._spec(proto, given, imports)
            found = self._lowered(spec, scope, emitter, imports)
            for name, held in zip(spec.outputs, found, strict=False):
                if name:
                    scope.names[name] = held

    def _spec(self, proto: Any, given: Mapping[str, Any], imports: Sequence[Any]) -> Spec:
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        number = next((o.version for o in imports if ("" if o.domain == "ai.onnx" else o.domain) == domain), 0)
        proto, attrs = attributes(proto, given)
        name = proto.name or next(iter(proto.output), proto.op_type)
        outputs = tuple(proto.output)
        while outputs and not outputs[-1]:
            outputs = outputs[:-1]
        return Spec(
            proto.op_type,
            domain,
            number or version(self.file.model, domain),
            name,
            tuple(proto.input),
            outputs,
            attrs,
            proto,
            place(proto),
        )

    def _lowered(self, spec: Spec, scope: Scope, emitter: Emitter, imports: Sequence[Any]) -> list[Held]:
        inputs = [scope.find(name) if name else None for name in spec.inputs]
        function = self.functions.get((spec.domain, spec.op))
        if function is not None:
            return self._called(function, spec, inputs, emitter)
        results = self._results(spec, inputs, imports)
        known = folded(spec, inputs, results)
        if known is not None:
            return list(known)
        mark = len(emitter.steps) if isinstance(emitter, Writer) else 0
        try:
            outputs = self.handled(spec, scope, emitter, results)
            if len(outputs) == 1 and isinstance(outputs[0], Symbol) and outputs[0].kind == "op":
                outputs[0].recipe = moved(spec, inputs)
            return [*outputs, *self._further(spec, inputs, emitter, results, len(outputs))]
        except UnknownEntriesError:
            if not isinstance(emitter, Writer):
                raise
            del emitter.steps[mark:]
            return self._late(spec, scope, emitter, results)
        except MisfitError as error:
            if self.guessed or not isinstance(emitter, Writer):
                raise
            del emitter.steps[mark:]
            self.notes[f"the {spec.op} {spec.name} does not fit its inputs: {error}"] = None
        except UnsupportedError as error:
            if not isinstance(emitter, Writer):
                raise
            del emitter.steps[mark:]
            self.notes[f"not supported: {error} ({spec.name})"] = None
        except (TypeError, ValueError, IndexError, KeyError, AttributeError, ZeroDivisionError, OverflowError) as error:
            if not isinstance(emitter, Writer):
                raise
            del emitter.steps[mark:]
            self.notes[f"the {spec.op} {spec.name} is not well-formed: {error}"] = None
        return self._unknown(spec, inputs, emitter, results)

    def _results(self, spec: Spec, inputs: Sequence[Held], imports: Sequence[Any]) -> list[Described]:
        try:
            found = infer(spec, inputs, imports)
        except MisfitError as error:
            if self.guessed:
                raise
            self.notes[f"the {spec.op} {spec.name} does not fit its inputs: {error}"] = None
            found = [(None, "") for _ in spec.outputs]
        told = [self.declared.get(name, (None, "")) for name in spec.outputs]
        return [
            (shape if shape is not None or self._depth else other[0], dtype or other[1])
            for (shape, dtype), other in zip(found, told, strict=True)
        ]

    def handled(self, spec: Spec, scope: Scope, emitter: Emitter, results: list[Described]) -> list[Held]:
        """The outputs of a standard node by its handler, or by the function that defines the operator."""
        handler = HANDLERS.get(spec.op) if spec.domain == "" or spec.op == "SimplifiedLayerNormalization" else None
        inputs = [scope.find(name) if name else None for name in spec.inputs]
        if handler is None:
            return self._defined(spec, inputs, emitter)

        def body(graph: Any, given: Sequence[Symbol]) -> list[Any]:
            return self.graph(graph, given, scope, emitter)

        found = handler(Node(spec, inputs, results, emitter, body))  # type: ignore[arg-type]
        return list(found) if isinstance(found, (list, tuple)) else [found]

    def graph(self, graph: Any, given: Sequence[Held], around: Scope, emitter: Emitter) -> list[Held]:
        """The outputs of a graph inside another one, its inputs given."""
        scope = Scope({value.name: held for value, held in zip(graph.input, given, strict=False)}, around)
        for tensor in graph.initializer:
            scope.names[tensor.name] = constant(self.file, tensor)
        self._descend(lambda: self.nodes(graph.node, scope, emitter, {}, self.file.model.opset_import))
        return [scope.find(value.name) for value in graph.output]

    def _called(
        self,
        function: Any,
        spec: Spec,
        inputs: Sequence[Held],
        emitter: Emitter,
        defaults: Mapping[str, Any] | None = None,
    ) -> list[Held]:
        """The outputs of a function that the file, or an operator's definition, spells out."""
        scope = Scope(dict.fromkeys(function.input))
        scope.names |= dict(zip(function.input, inputs, strict=False))
        given = {**(defaults or {}), **{a.name: a for a in (*function.attribute_proto, *spec.proto.attribute)}}
        imports = function.opset_import or self.file.model.opset_import
        start = len(emitter.steps) if isinstance(emitter, Writer) else 0
        self._descend(lambda: self.nodes(function.node, scope, emitter, given, imports))
        if isinstance(emitter, Writer) and (spec.place.path or spec.place.span):
            emitter.steps[start:] = [
                replace(step, place=spec.place) if not step.place.path and not step.place.span else step
                for step in emitter.steps[start:]
            ]
        return [scope.find(name) for name in function.output]

    def _defined(self, spec: Spec, inputs: Sequence[Held], emitter: Emitter) -> list[Held]:
        """By the definition that the operator set gives of some operators. Raises UnsupportedError without one."""
        import onnx

        known = schema(spec)
        body: Any = None
        defaults: dict[str, Any] = {}
        if known is not None and known.has_function:
            body = known.get_function_with_opset_version(spec.version)
            defaults = {name: a.default_value for name, a in known.attributes.items() if a.default_value.name}
        elif known is not None and known.has_context_dependent_function:
            types = [_type_bytes(held) for held in inputs]
            made = known.get_context_dependent_function_with_opset_version(
                spec.version, spec.proto.SerializeToString(), types
            )
            body = onnx.FunctionProto.FromString(made) if made else None
        if body is None:
            raise UnsupportedError(f"the operator {spec.domain + '.' if spec.domain else ''}{spec.op}")
        return self._called(
            onnx.FunctionProto.FromString(body) if isinstance(body, bytes) else body, spec, inputs, emitter, defaults
        )

    def _descend(self, action: Callable[[], None]) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise LoadError(f"functions and graphs are nested more than {DEEPEST} deep")
        try:
            action()
        finally:
            self._depth -= 1

    def _late(self, spec: Spec, scope: Scope, emitter: Writer, results: list[Described]) -> list[Held]:
        """A step that is interpreted when it is run."""
        names = tuple(dict.fromkeys([*(n for n in spec.inputs if n), *_free(spec.proto)]))
        held = scope.flat()
        given = tuple(name for name in names if isinstance(held.get(name), Symbol))
        if any(isinstance(scope.find(name), Bundle) for name in spec.inputs if name):
            return self._unknown(spec, [scope.find(n) if n else None for n in spec.inputs], emitter, results)
        args = tuple(held[name] for name in given)
        late = Late(self, spec, given)
        return list(emitter.emit(f"onnx.{spec.op}", args, {}, results, spec.place, late))

    def _further(
        self, spec: Spec, inputs: Sequence[Held], emitter: Emitter, results: list[Described], count: int
    ) -> list[Held]:
        """Outputs beyond those that the handler gives (masks, indices, statistics): unknown, if anything reads them."""
        if not isinstance(emitter, Writer):
            return []
        args = tuple(held for held in inputs if isinstance(held, Symbol))
        places = range(count, len(spec.outputs))
        return [emitter.emit(f"onnx.{spec.op}.{i}", args, {}, [results[i]], spec.place)[0] for i in places]

    def _unknown(self, spec: Spec, inputs: Sequence[Held], emitter: Emitter, results: list[Described]) -> list[Held]:
        assert isinstance(emitter, Writer)
        args = tuple(held for held in inputs if isinstance(held, Symbol))
        name = f"onnx.{spec.domain + '.' if spec.domain else ''}{spec.op}"
        return list(emitter.emit(name, args, {}, results or [(None, "")], spec.place))


def constant(file: File, tensor: Any) -> Symbol:
    """A stored tensor whose entries no training changes."""
    from gradlint.onnx.program import dtype_name

    array = file.array(tensor)
    return Symbol(tensor.name, "buffer", tuple(array.shape), dtype_name(array), data=array)


def _free(node: Any) -> list[str]:
    """The names that graphs among the node's attributes read from outside."""
    from gradlint.onnx.file import graphs

    found: list[str] = []
    for graph in graphs(node):
        for inner in graph.node:
            found += [name for name in inner.input if name]
            found += _free(inner)
        found += [value.name for value in graph.output]
    return found


def _type_bytes(held: Held) -> bytes:
    import onnx

    from gradlint.onnx.shapes import _type

    made = _type(held) if isinstance(held, Symbol) else onnx.TypeProto()
    data: bytes = made.SerializeToString()
    return data
