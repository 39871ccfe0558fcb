"""The invariants of a graph, each a function that names what breaks it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from gradlint.graph.ir import KINDS, Graph, Op


def verify(graph: Graph) -> list[str]:
    """Every broken invariant of the graph in words; empty for a well-formed graph.

    References to values that are not there are reported alone: the other checks follow them.
    """
    return list(_references_exist(graph)) or [problem for check in CHECKS for problem in check(graph)]


def _values_are_numbered(graph: Graph) -> Iterator[str]:
    for place, value in enumerate(graph.values):
        if value.id != place:
            yield f"value {value.id} stands at position {place}"


def _ops_are_numbered(graph: Graph) -> Iterator[str]:
    for place, op in enumerate(graph.ops):
        if op.index != place:
            yield f"op {op.index} stands at position {place}"


def _references_exist(graph: Graph) -> Iterator[str]:
    known = range(len(graph.values))
    for op in graph.ops:
        for value in (*op.inputs, *op.outputs):
            if value not in known:
                yield f"op {op.index} refers to value {value}, which is not there"
    for value in (*graph.inputs, *graph.outputs):
        if value not in known:
            yield f"the model's value {value} is not there"


def _ops_are_described(graph: Graph) -> Iterator[str]:
    for op in graph.ops:
        if op.kind not in KINDS:
            yield f"op {op.index} has the unknown kind {op.kind!r}"
        if len(op.roles) != len(op.inputs):
            yield f"op {op.index} has {len(op.inputs)} inputs and {len(op.roles)} roles"
        if not op.outputs:
            yield f"op {op.index} ({op.name}) has no outputs"
        if not _is_json(op):
            yield f"op {op.index} ({op.name}) has attributes that are not plain data"


def _is_json(op: Op) -> bool:
    try:
        json.dumps(dict(op.attrs))
    except (TypeError, ValueError):
        return False
    return True


def _values_have_one_producer(graph: Graph) -> Iterator[str]:
    producers: dict[int, int] = {}
    for op in graph.ops:
        for output in op.outputs:
            if output in producers:
                yield f"value {output} is produced by op {producers[output]} and by op {op.index}"
            producers[output] = op.index
    for value in graph.values:
        if (value.origin == "op") != (value.id in producers) or value.producer != producers.get(value.id):
            yield f"value {value.id} ({value.origin}) names {value.producer} as its producer"


def _order_is_topological(graph: Graph) -> Iterator[str]:
    for op in graph.ops:
        for value in op.inputs:
            producer = graph.values[value].producer
            if producer is not None and producer >= op.index:
                yield f"op {op.index} reads value {value} before op {producer} produces it"


def _consumers_agree(graph: Graph) -> Iterator[str]:
    consumers: dict[int, list[int]] = {}
    for op in graph.ops:
        for read in dict.fromkeys(op.inputs):
            consumers.setdefault(read, []).append(op.index)
    for value in graph.values:
        if value.consumers != tuple(consumers.get(value.id, ())):
            yield f"value {value.id} names {value.consumers} as its consumers"


def _params_are_known(graph: Graph) -> Iterator[str]:
    for value in graph.values:
        if value.origin == "param" and value.name not in graph.params:
            yield f"value {value.id} is the unknown parameter {value.name!r}"
    for op in graph.ops:
        read = tuple(graph.values[value].name for value in op.inputs if graph.values[value].origin == "param")
        if op.params != read:
            yield f"op {op.index} names the parameters {op.params}, and reads {read}"
    for path, param in graph.params.items():
        if param.path != path:
            yield f"parameter {param.path!r} is filed under {path!r}"


def _inputs_are_inputs(graph: Graph) -> Iterator[str]:
    for value in graph.inputs:
        if graph.values[value].origin != "input":
            yield f"the model's input {value} is of origin {graph.values[value].origin}"
    if graph.output_names and len(graph.output_names) != len(graph.outputs):
        yield f"{len(graph.outputs)} outputs have {len(graph.output_names)} names"


def _coverage_counts(graph: Graph) -> Iterator[str]:
    if graph.coverage.ops != len(graph.ops):
        yield f"coverage counts {graph.coverage.ops} ops of {len(graph.ops)}"
    paths = [module.path for module in graph.modules]
    if len(set(paths)) != len(paths):
        yield "two modules have one path"


CHECKS = (
    _values_are_numbered,
    _ops_are_numbered,
    _ops_are_described,
    _values_have_one_producer,
    _order_is_topological,
    _consumers_agree,
    _params_are_known,
    _inputs_are_inputs,
    _coverage_counts,
)
