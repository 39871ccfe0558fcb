"""From tables of numbers by call to a measurement of values, ops and parameters."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace

from torch import nn

from gradlint.graph.ir import Graph, Op
from gradlint.probe import parameters
from gradlint.probe.loss import Value
from gradlint.probe.route import carried
from gradlint.profile import Gain, Measurement, ParamMeasure, Profile, Units

INPUT = -1  # stands for a call number in the key of an input
Tables = Mapping[str, Mapping[Hashable, float]]


@dataclass(frozen=True)
class Seen:
    """What one pass showed, before it is put in terms of the graph."""

    tables: Tables
    params: Mapping[str, nn.Parameter]
    loss: Value | None
    seed: int
    device: str
    dtype: str


def assemble(graph: Graph, seen: Seen) -> Measurement:
    """The measurement of one pass."""
    tables, loss = seen.tables, seen.loss
    output = tables.get("output", {})
    params = parameters.collect(seen.params, graph, tables)
    extremes = {
        value: (low, tables["high"][key]) for key, low in tables.get("low", {}).items() for value in _value(graph, key)
    }
    profile = Profile(
        activation=by_value(graph, tables.get("activation", {})),
        gradient=by_value(graph, tables.get("gradient", {})),
        params={path: param.grad for path, param in params.items() if param.status in ("ok", "zero", "nonfinite")},
        correlation=by_value(graph, tables.get("correlation", {})),
    )
    return Measurement(
        profile=replace(profile, gains=dict(_gains(graph, profile))),
        params=params,
        units=dict(_units(graph, tables)),
        loss=loss.name if loss else "none",
        guessed=loss is not None and loss.guessed,
        loss_value=output.get("loss", math.nan),
        chance_loss=loss.chance if loss else None,
        output_rms=output.get("rms", math.nan),
        output_spread=output.get("spread", math.nan),
        nonfinite_op=_first_nonfinite(graph, profile, extremes),
        nonfinite_gradient_op=_last_nonfinite(graph, profile, params),
        extremes=extremes,
        seeds=(seen.seed,),
        device=seen.device,
        dtype=seen.dtype,
        notes=(f"loss {loss.name}: {loss.reason}", *loss.notes) if loss else ("no output requires a gradient",),
        through_time=dict(_through_time(graph, tables.get("steps", {}))),
    )


def _value(graph: Graph, key: Hashable) -> tuple[int, ...]:
    """The value id of a key (call, position); none for a call or output that the graph does not have."""
    assert isinstance(key, tuple)
    index, position = key
    if index == INPUT:
        return (graph.inputs[position],)
    known = graph.ops[index].outputs if index < len(graph.ops) else ()
    return (known[position],) if position < len(known) else ()


def by_value(graph: Graph, table: Mapping[Hashable, float]) -> dict[int, float]:
    """A table by (call, position) as one by value id."""
    return {value: number for key, number in table.items() for value in _value(graph, key)}


def _gains(graph: Graph, profile: Profile) -> Iterator[tuple[int, Gain]]:
    """The change over each op with one signal operand; the gradient's only where no other op reads that operand."""
    for op in graph.ops:
        operands = carried(graph, op)
        if len(operands) != 1 or not op.outputs:
            continue
        value, result = operands[0], op.outputs[0]
        alone = len(graph.values[value].consumers) == 1
        yield (
            op.index,
            Gain(
                forward=_less(profile.activation.get(result), profile.activation.get(value)),
                backward=_less(profile.gradient.get(value), profile.gradient.get(result)) if alone else None,
            ),
        )


def _less(minuend: float | None, subtrahend: float | None) -> float | None:
    if minuend is None or subtrahend is None or math.isnan(minuend - subtrahend):
        return None
    return minuend - subtrahend


def _units(graph: Graph, tables: Tables) -> Iterator[tuple[int, Units]]:
    for key, count in tables.get("count", {}).items():
        assert isinstance(key, tuple)
        if key[0] < len(graph.ops) and graph.ops[key[0]].kind == "activation":
            shares = (tables[share][key] for share in ("dead", "saturated", "constant"))
            yield key[0], Units(int(count), *shares)


def _through_time(graph: Graph, table: Mapping[Hashable, float]) -> Iterator[tuple[int, tuple[float, ...]]]:
    """Per recurrent op the sizes of the gradient at each step of its input."""
    steps: dict[int, list[float]] = {}
    for key, number in table.items():  # in the order of the steps
        assert isinstance(key, tuple)
        for value in _value(graph, key[:2]):
            steps.setdefault(value, []).append(number)
    for op in graph.ops:
        operand = graph.operand(op, "input") if op.kind == "recurrent" else None
        if operand is not None and operand.id in steps:
            yield op.index, tuple(steps[operand.id])


def _first_nonfinite(graph: Graph, profile: Profile, extremes: Mapping[int, tuple[float, float]]) -> int | None:
    """The op where NaN or Inf that reaches an output began; a mask of -inf that a softmax takes back is none.

    NaN takes precedence over Inf, as a NaN is what an Inf becomes.
    """
    bad = {value for value, size in profile.activation.items() if not math.isfinite(size) and size != -math.inf}
    waiting = [op for value in graph.outputs if value in bad and (op := graph.op_of(value)) is not None]
    chain: dict[int, Op] = {}
    while waiting:
        op = waiting.pop()
        if op.index not in chain:
            chain[op.index] = op
            waiting += [before for v in op.inputs if v in bad and (before := graph.op_of(v)) is not None]
    nan = {v for v in bad if math.isnan(profile.activation[v]) or any(map(math.isnan, extremes.get(v, ())))}
    makers = [i for i, op in chain.items() if nan & set(op.outputs) and not nan & set(op.inputs)]
    return min(makers or chain, default=None)


def _last_nonfinite(graph: Graph, profile: Profile, params: Mapping[str, ParamMeasure]) -> int | None:
    """The op nearest the loss with NaN or Inf in the gradient of its output, else in that of its parameters.

    None when every parameter's gradient is finite: a ReLU behind a root at zero takes the Inf back.
    """
    broken = {path for path, measured in params.items() if measured.status == "nonfinite"}
    if not broken:
        return None
    bad = {value for value, size in profile.gradient.items() if math.isnan(size) or size == math.inf}
    hit = [op.index for op in graph.ops if bad & set(op.outputs)]
    return max(hit or [op.index for op in graph.ops if broken & set(op.params)], default=None)
