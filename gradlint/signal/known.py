"""Values that depend on nothing that was fed in: their exact moments, and what their gradient makes of parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from gradlint.graph import Graph, Op, Param
from gradlint.signal import patterns
from gradlint.signal import table as tables
from gradlint.signal.field import Cotangent, Field, from_sums
from gradlint.signal.masks import masks_logits
from gradlint.signal.site import Labels, Square, shaped
from gradlint.signal.weights import field_of, numbers_of, stands_for_infinity

VANISHING = 24.0 * math.log(2.0)  # e^−this is half a unit in the last place of a float32 number near 1

VANISHING = 24.0 * math.log(2.0)  # e^−this is half a unit in the last place of a float32 number near 1


def fields(graph: Graph) -> dict[int, Field]:
    """The exact fields of the float tensors that were there; masks of logits are not numbers to reckon with."""
    found = {}
    for number, fixed in graph.fixed.items():
        value = graph.values[number]
        if value.dtype.startswith(("float", "bfloat")) and not hides(graph, number):
            field = shaped(field_of(fixed.numbers), value.shape)
            if field is not None:
                found[number] = field
    return found


def hides(graph: Graph, number: int) -> bool:
    """Whether a value holds numbers that a softmax reads as minus infinity."""
    numbers = graph.fixed[number].numbers
    return stands_for_infinity(numbers) or (_switches(numbers) and masks_logits(graph, number))


def _switches(numbers: Param) -> bool:
    """Whether every entry is 0 or one −c with e^−c below the rounding of a float32 probability."""
    largest, zeros = numbers.abs_max or 0.0, numbers.zero_share or 0.0
    if largest < VANISHING or not 0.0 < zeros < 1.0 or numbers.mean is None or numbers.rms is None:
        return False
    level = (1.0 - zeros) * largest
    return math.isclose(-numbers.mean, level, rel_tol=1e-5) and math.isclose(
        numbers.rms**2, level * largest, rel_tol=1e-5
    )


def labels(graph: Graph) -> dict[int, Labels]:
    """The integer tensors that were there: how often two entries are equal."""
    found = {}
    for number, fixed in graph.fixed.items():
        value, sums = graph.values[number], fixed.numbers.moments.get("sums")
        if sums is not None and value.dtype.startswith(("int", "uint")):
            equal = from_sums(fixed.numbers.shape, numbers_of(sums), 0.0)
            labelled = shaped(equal, value.shape)
            assert labelled is not None
            found[number] = Labels(labelled, random=False)
    return found


def settled(graph: Graph) -> set[int]:
    """The ops of which nothing is read but what is known anyway, by index."""
    found = set[int]()
    for op in reversed(graph.ops):
        if all(_was_there(graph, value) or _read_by(graph, value, found) for value in op.outputs):
            found.add(op.index)
    return found


def _was_there(graph: Graph, value: int) -> bool:
    """Whether a value is reckoned with as it was in the recorded run."""
    seen = graph.seen.get(value)
    return value in graph.fixed or (seen is not None and not stands_for_infinity(seen))


def _read_by(graph: Graph, value: int, ops: set[int]) -> bool:
    consumers = graph.values[value].consumers
    return bool(consumers) and value not in graph.outputs and ops.issuperset(consumers)


def arrived(graph: Graph, op: Op, cotangents: Mapping[int, Cotangent | None]) -> dict[str, Square | None] | None:
    """What the gradients of an op's outputs make of the parameters behind them, by path; None where that is not known.

    E|Jᵀg|² is linear in the second moments of g: Σ over S of (what of them the axes in S alone explain) times the
    response to unit entries along S.
    """
    known = [value for value in op.outputs if value in graph.fixed and graph.fixed[value].responses]
    if not known:
        return None
    found: dict[str, Square | None] = {}
    for value in known:
        for path, response in graph.fixed[value].responses.items():
            cotangent = cotangents.get(value)
            before = found.get(path, Square(0.0, 0.0))
            if value not in cotangents:
                continue
            if cotangent is None or before is None:
                found[path] = None
                continue
            part = _answer(cotangent, response)
            found[path] = Square(before.value + part.value, before.magnitude + part.magnitude)
    return found


def _answer(cotangent: Cotangent, response: Mapping[str, float]) -> Square:
    table = tables.merge_dims(cotangent.table.collapse())
    axes = [dim for dim, parts in enumerate(table.dims) if parts]
    shares = table.values[0].copy()
    for axis in range(len(axes)):
        same = [slice(None)] * axis + [1]
        shares[tuple(same)] -= patterns.take(shares[None], axis, 0)[0]
    terms = [
        share * response["".join(str(axis) for axis, taken in zip(axes, pattern, strict=True) if taken)]
        for pattern, share in np.ndenumerate(shares)
    ]
    return Square(float(sum(terms)), float(sum(map(abs, terms))))
