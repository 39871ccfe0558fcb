"""Input shapes that a file mentions: where it calls the model, in docstrings and comments, and by its data set."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from gradlint.source.calls import Makers, assignments
from gradlint.source.constants import constant, named_constants, stated_values
from gradlint.source.datasets import dataset_shapes
from gradlint.source.names import dotted, is_function, parameters, walk_scope
from gradlint.source.prose import docstring, prose_shapes
from gradlint.source.recipe import Scope
from gradlint.source.shapes import ShapeHint, Shapes

__all__ = ["ShapeHint", "SourceHints", "hints_of"]

MODEL_NAMES = {"model", "net", "network", "self.model", "self.net"}

# Functions that run a model on an input: where the model is, where the input is, and whether its shape lacks the batch.
RUNNERS: Mapping[str, tuple[int, str, bool]] = {
    "torchsummary.summary": (1, "input_size", True),
    "torchinfo.summary": (1, "input_size", False),
    "torch.onnx.export": (1, "args", False),
    "torch.jit.trace": (1, "example_inputs", False),
    "torch.export.export": (1, "args", False),
    "thop.profile": (1, "inputs", False),
    "ptflops.get_model_complexity_info": (1, "input_res", True),
}


@dataclass(frozen=True)
class SourceHints:
    """What a file says about the inputs of one model."""

    calls: tuple[
        tuple[ShapeHint, ...], ...
    ] = ()  # calls of the model with tensors, the tensors in argument order; best first
    shapes: tuple[ShapeHint, ...] = ()  # shapes named by summaries, docstrings, comments and data sets; best first
    docstring: str = ""  # of the class and of its forward
    dataset: str = ""  # the data set that the file reads or names: "MNIST"


def hints_of(known: Makers, scopes: list[Scope], names: frozenset[str], made_by: str) -> SourceHints:
    """What the file says about the inputs of the model that `names` hold and `made_by` makes."""
    reader = _Reader(known, names, made_by)
    calls = [call for scope in scopes for call in reader.calls(scope)]
    summaries = [hint for scope in scopes for hint in reader.summaries(scope)]
    owner = known.classes[made_by].node if made_by in known.classes else None
    factory = known.factories.get(made_by)
    node = owner or (factory.node if factory else None)
    prose = prose_shapes(known.source, node) if node else []
    text = docstring(node) if node else ""
    mentions = " ".join([made_by, text, ast.get_docstring(known.source.tree) or ""])
    dataset, shapes = dataset_shapes(known.source.tree, known.aliases, mentions, reader.options)
    return SourceHints(tuple(dict.fromkeys(calls)), (*summaries, *prose, *shapes), text, dataset)


@dataclass(frozen=True)
class _Reader:
    known: Makers
    names: frozenset[str]
    made_by: str

    def calls(self, scope: Scope) -> Iterator[tuple[ShapeHint, ...]]:
        """The model's calls in a scope whose tensors can all be read."""
        shapes = self._shapes(scope)
        held = self._held(scope)
        for node in self._nodes(scope):
            if isinstance(node, ast.Call) and self._is_model(node.func, held) and (hints := _tensors(node, shapes)):
                yield hints

    def summaries(self, scope: Scope) -> Iterator[ShapeHint]:
        """Shapes given to torchsummary, torch.onnx.export and the like, beside the model."""
        shapes = self._shapes(scope)
        for node in self._nodes(scope):
            runner = RUNNERS.get(dotted(node.func, self.known.aliases)) if isinstance(node, ast.Call) else None
            if runner is None or not isinstance(node, ast.Call):
                continue
            place, keyword, without_batch = runner
            given = next((k.value for k in node.keywords if k.arg == keyword), None)
            value = given if given is not None else node.args[place] if len(node.args) > place else None
            if (hint := shapes.of(value) or shapes.plain(value)) is not None:
                batch = ("N",) if without_batch and hint.values == "" else ()
                yield replace(hint, shape=(*batch, *hint.shape), origin="summary", line=node.lineno)

    def _nodes(self, scope: Scope) -> Iterator[ast.AST]:
        for statement in scope.body:
            if not (is_function(statement) or isinstance(statement, ast.ClassDef)):
                yield from walk_scope(statement)

    def _held(self, scope: Scope) -> set[str]:
        """The names that hold the model in a scope: its variables, and parameters called like a model."""
        given = {p.arg for p in parameters(scope.function)} if scope.function else set()
        return set(self.names) | (given & MODEL_NAMES) | {n for n in MODEL_NAMES if n.startswith("self.")}

    def _is_model(self, function: ast.expr, held: set[str]) -> bool:
        if isinstance(function, ast.Call):
            return self.known.maker(function) == self.made_by
        return isinstance(function, ast.Name | ast.Attribute) and ast.unparse(function) in held

    def _shapes(self, scope: Scope) -> Shapes:
        values: dict[str, ast.expr] = {}
        for name, value in assignments(list(scope.body)):
            values.setdefault(name, value)
        literal = {n: v for n, e in values.items() if (v := _literal(e, self._constants)) is not None}
        return Shapes(self.known.aliases, {**self._constants, **literal}, values, self.options)

    @cached_property
    def options(self) -> dict[str, object]:
        """What the file states by name."""
        return stated_values(self.known.source)

    @cached_property
    def _constants(self) -> dict[str, object]:
        return named_constants(self.known.source)


def _literal(value: ast.expr, constants: Mapping[str, object]) -> object:
    try:
        return constant(value, constants)
    except ValueError:
        return None


def _tensors(call: ast.Call, shapes: Shapes) -> tuple[ShapeHint, ...]:
    """The tensors that a call passes, or () when one of its positional arguments cannot be read."""
    plain = [shapes.of(a) for a in call.args]
    named = [replace(hint, name=k.arg) for k in call.keywords if k.arg and (hint := shapes.of(k.value))]
    return (*(h for h in plain if h), *named) if all(plain) else ()
