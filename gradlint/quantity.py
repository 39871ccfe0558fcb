"""The measurable quantities that claims are made of: each reads a predicted and a measured profile alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gradlint.graph.ir import Graph
from gradlint.probe.route import applications
from gradlint.profile import Measurement, Question, Signal

Facts = Signal | Measurement
Subject = Sequence[int | str]
Function = Callable[[Graph, Facts, Subject], float | None]


# The size of a measured gradient that has none: exactly zero, or beyond every number.
STATUS: Mapping[str, float] = {"zero": -math.inf, "none": -math.inf, "nonfinite": math.inf}


@dataclass(frozen=True)
class Quantity:
    """How a quantity is computed, its unit ("decades", "share", …) and a description to print beside the number."""

    function: Function
    unit: str
    description: str


def gradient_change(graph: Graph, facts: Facts, subject: Subject) -> float | None:
    """log10 RMS of the gradient at the first value of the subject less that at the last (input side, output side)."""
    return _change(facts.profile.gradient, subject[0], subject[-1])


def activation_change(graph: Graph, facts: Facts, subject: Subject) -> float | None:
    """log10 RMS of the activation at the last value of the subject less that at the first (output side, input side)."""
    return _change(facts.profile.activation, subject[-1], subject[0])


def activation_size(graph: Graph, facts: Facts, subject: Subject) -> float | None:
    """The largest log10 RMS among the values of the subject; ∞ for NaN, which an overflow turns into."""
    return _extreme(max, (_overflown(facts.profile.activation.get(_int(value))) for value in subject))


def gradient_size(graph: Graph, facts: Facts, subject: Subject) -> float | None:
    """The largest log10 RMS of the gradient among the values of the subject; ∞ for NaN."""
    return _extreme(max, (_overflown(facts.profile.gradient.get(_int(value))) for value in subject))


def relative_gradient(graph: Graph, facts: Facts, path: str) -> float | None:
    """log10(RMS of the gradient ÷ RMS of the weight) of one parameter (signal.md §4: the g/w of m_series)."""
    gradient, weight = _parameter(graph, facts, path)
    return None if gradient is None or weight is None else _difference(gradient, weight)


def elasticity(graph: Graph, facts: Facts, path: str) -> float | None:
    """log10(‖g‖_F ‖w‖_F) of one parameter: the loss change per relative change of the tensor (signal.md §4)."""
    gradient, weight = _parameter(graph, facts, path)
    if gradient is None or weight is None:
        return None
    return _known(gradient + weight + math.log10(max(1, math.prod(graph.params[path].shape))))


def least_relative_gradient(graph: Graph, facts: Facts, subject: Subject) -> float | None:
    """The smallest log10(g/w) among the parameters of the subject."""
    return _extreme(min, (relative_gradient(graph, facts, str(path)) for path in subject))


def greatest_relative_gradient(graph: Graph, facts: Facts, subject: Subject) -> float | None:
    """The largest log10(g/w) among the parameters of the subject."""
    return _extreme(max, (relative_gradient(graph, facts, str(path)) for path in subject))


def elasticity_excess(graph: Graph, facts: Facts, subject: Subject) -> float | None:
    """The largest elasticity among the parameters of the subject less that of the last one (signal.md §4: c).

    Each counts per application of the parameter (`gradlint.probe.health.chaos`).
    """
    last = _per_application(graph, facts, str(subject[-1]))
    top = _extreme(max, (_per_application(graph, facts, str(path)) for path in subject))
    return None if last is None or top is None else _difference(top, last)


def _per_application(graph: Graph, facts: Facts, path: str) -> float | None:
    value = elasticity(graph, facts, path)
    return None if value is None else value - math.log10(applications(graph).get(path, 1))


def output_spread(graph: Graph, facts: Facts, subject: Subject) -> float | None:
    """log10 of the standard deviation between samples at the value of the subject (signal.md §4: s).

    Predicted from the RMS and the correlation between samples; measured at the model's output whatever the subject.
    """
    if isinstance(facts, Measurement):
        return _known(facts.output_spread)
    value = _int(subject[0])
    size, same = facts.profile.activation.get(value), facts.profile.correlation.get(value)
    if size is None or same is None:
        return size
    return size + 0.5 * math.log10(max(1.0 - same, 1e-30))


def loss_above_chance(graph: Graph, facts: Facts, subject: Subject) -> float | None:
    """log10(loss ÷ loss of an uninformed prediction); measured only."""
    if not isinstance(facts, Measurement) or not facts.chance_loss or facts.chance_loss <= 0:
        return None
    return math.inf if not math.isfinite(facts.loss_value) else _log10(facts.loss_value / facts.chance_loss)


def dead_share(graph: Graph, facts: Facts, subject: Subject) -> float | None:
    """The largest share of dead units among the ops of the subject; measured only."""
    return _units(facts, subject, "dead")


def saturated_share(graph: Graph, facts: Facts, subject: Subject) -> float | None:
    """The largest share of saturated units among the ops of the subject; measured only."""
    return _units(facts, subject, "saturated")


def constant_share(graph: Graph, facts: Facts, subject: Subject) -> float | None:
    """The largest share of constant units among the ops of the subject; measured only."""
    return _units(facts, subject, "constant")


def least_entry(graph: Graph, facts: Facts, subject: Subject) -> float | None:
    """The smallest entry of the values of the subject; measured only."""
    if not isinstance(facts, Measurement):
        return None
    return _extreme(min, (bounds[0] for v in subject if (bounds := facts.extremes.get(_int(v))) is not None))


def greatest_entry(graph: Graph, facts: Facts, subject: Subject) -> float | None:
    """The largest entry of the values of the subject; measured only."""
    if not isinstance(facts, Measurement):
        return None
    return _extreme(max, (bounds[1] for v in subject if (bounds := facts.extremes.get(_int(v))) is not None))


def other_samples(graph: Graph, facts: Facts, subject: Subject) -> float | None:
    """log10(gradient RMS at the most read other sample ÷ at the prediction's own); measured only, -∞ for none at all.

    The subject holds the fields of a `gradlint.profile.Question`.
    """
    rows = _dependence(facts, subject)
    if rows is None or len(rows) < 2:
        return None
    own = len(rows) // 2
    return _difference(max(row for i, row in enumerate(rows) if i != own), rows[own])


def later_positions(graph: Graph, facts: Facts, subject: Subject) -> float | None:
    """log10(gradient RMS at the most read position after the prediction's own ÷ up to it); measured only."""
    rows = _dependence(facts, subject)
    if rows is None or len(rows) < 2:
        return None
    own = len(rows) // 2
    return _difference(max(rows[own + 1 :], default=-math.inf), max(rows[: own + 1]))


def format_change(graph: Graph, facts: Facts, subject: Subject) -> float | None:
    """The smallest log10(gradient RMS in the narrower format ÷ in full precision) of the parameters; measured only."""
    if not isinstance(facts, Measurement) or facts.precision is None:
        return None
    return _extreme(min, (facts.precision.changes.get(str(path)) for path in subject))


def format_headroom(graph: Graph, facts: Facts, subject: Subject) -> float | None:
    """The smallest log10(largest number of the narrower format ÷ largest magnitude) of the values; measured only."""
    if not isinstance(facts, Measurement) or facts.precision is None:
        return None
    return _extreme(min, (facts.precision.headroom.get(_int(value)) for value in subject))


def attention_logits(graph: Graph, facts: Facts, subject: Subject) -> float | None:
    """log10 RMS of the logits inside a fused attention (an op), from the sizes of query and key.

    Products of independent queries and keys of width d have the RMS scale · √d · RMS q · RMS k. What all samples' keys
    have in common moves every logit of a query alike, and a softmax does not see it: it is taken off.
    """
    op = next((op for op in graph.ops if op.index == subject[0]), None)
    if op is None:
        return None
    sizes = [facts.profile.activation.get(value.id) for role in ("query", "key") if (value := graph.operand(op, role))]
    scale, query, key = op.attrs.get("scale"), graph.operand(op, "query"), graph.operand(op, "key")
    known = [size for size in sizes if size is not None]
    if len(known) < 2 or query is None or not isinstance(scale, int | float) or scale <= 0:
        return None
    same = None if key is None else facts.profile.correlation.get(key.id)
    varying = 0.5 * _log10(min(1.0, max(1.0 - (same or 0.0), 1e-30)))
    return _known(sum(known) + varying + _log10(float(scale)) + 0.5 * _log10(float(query.shape[-1])))


def attention_focus(graph: Graph, facts: Facts, subject: Subject) -> float | None:
    """Mean Σ p² over the keys of the weights p that a softmax gives (a value): from 1 ÷ keys, all alike, to 1, one key.

    The subject is the softmax's output and the number of its keys.
    """
    size = facts.profile.activation.get(_int(subject[0]))
    return None if size is None or math.isnan(size) else min(1.0, _int(subject[-1]) * 10 ** (2 * size))


def sample_collapse(graph: Graph, facts: Facts, subject: Subject) -> float | None:
    """log10(1 − mean cosine between samples), the smallest among the values: far below 0, they forget their input.

    SGD no longer learns below -5, Adam below -10 (signal.md §4); float64 cannot tell less than -15.
    """
    same = [facts.profile.correlation.get(_int(value)) for value in subject]
    return _extreme(min, (None if c is None else _log10(min(max(1.0 - c, 1e-15), 2.0)) for c in same))


def depth_scale(graph: Graph, facts: Facts, subject: Subject) -> float | None:
    """Layers in which the gradient changes by a factor e, ξ = 1/|ln χ| (Schoenholz et al. 2017); ∞ where it does not.

    The subject holds the values at the ends of the layers in order, χ is the mean gain a layer.
    """
    change = _change(facts.profile.gradient, subject[0], subject[-1])
    if change is None or len(subject) < 2:
        return None
    decades = abs(change) / (len(subject) - 1)
    return math.inf if decades == 0.0 else 1.0 / (decades * math.log(10.0))


QUANTITIES: Mapping[str, Quantity] = {
    "gradient-change": Quantity(gradient_change, "decades", "gradient RMS, input side over output side"),
    "activation-change": Quantity(activation_change, "decades", "activation RMS, output side over input side"),
    "activation-size": Quantity(activation_size, "decades", "activation RMS"),
    "gradient-size": Quantity(gradient_size, "decades", "gradient RMS"),
    "relative-gradient": Quantity(least_relative_gradient, "decades", "smallest weight gradient over its weight"),
    "top-relative-gradient": Quantity(greatest_relative_gradient, "decades", "largest weight gradient over its weight"),
    "elasticity-excess": Quantity(elasticity_excess, "decades", "largest elasticity over the last layer's"),
    "output-spread": Quantity(output_spread, "decades", "standard deviation of the output between samples"),
    "sample-collapse": Quantity(sample_collapse, "decades", "what is left of the difference between samples"),
    "depth-scale": Quantity(depth_scale, "layers", "layers in which the gradient changes by a factor e"),
    "loss-above-chance": Quantity(loss_above_chance, "decades", "loss over that of an uninformed prediction"),
    "dead-share": Quantity(dead_share, "share", "units that are zero for every sample"),
    "saturated-share": Quantity(saturated_share, "share", "units at a bound of the activation"),
    "constant-share": Quantity(constant_share, "share", "units with one value for every sample"),
    "other-samples": Quantity(other_samples, "decades", "gradient at another sample over that at its own"),
    "later-positions": Quantity(later_positions, "decades", "gradient at a later position over that up to its own"),
    "format-change": Quantity(format_change, "decades", "gradient in the narrower format over that in full precision"),
    "format-headroom": Quantity(format_headroom, "decades", "largest number of the format over the largest entry"),
    "attention-logits": Quantity(attention_logits, "decades", "RMS of the logits that the softmax reads"),
    "attention-focus": Quantity(attention_focus, "share", "Σ p² of attention weights: 1 where each query has one key"),
    "least-entry": Quantity(least_entry, "", "smallest entry"),
    "greatest-entry": Quantity(greatest_entry, "", "largest entry"),
}


def _dependence(facts: Facts, subject: Subject) -> tuple[float, ...] | None:
    if not isinstance(facts, Measurement):
        return None
    end, end_axis, source, source_axis = map(_int, subject)
    return facts.dependence.get(Question(end, end_axis, source, source_axis))


def _parameter(graph: Graph, facts: Facts, path: str) -> tuple[float | None, float | None]:
    """log10 RMS of the parameter's gradient and of its weight; the weight is the graph's own for a prediction."""
    if isinstance(facts, Measurement):
        measured = facts.params.get(path)
        if measured is None or measured.status in ("frozen", "unused"):
            return None, None
        return STATUS.get(measured.status, measured.grad), measured.weight
    param = graph.params.get(path)
    weight = None if param is None or param.rms is None else _log10(param.rms)
    return (-math.inf if path in facts.zeros else facts.profile.params.get(path)), weight


def _change(sizes: Mapping[int, float], end: int | str, start: int | str) -> float | None:
    first, last = sizes.get(_int(end)), sizes.get(_int(start))
    return None if first is None or last is None else _difference(first, last)


def _units(facts: Facts, subject: Subject, share: str) -> float | None:
    if not isinstance(facts, Measurement):
        return None
    return _extreme(max, (getattr(facts.units[_int(op)], share) for op in subject if op in facts.units))


def _extreme(pick: Callable[[list[float]], float], numbers: Iterable[float | None]) -> float | None:
    known = [number for number in numbers if number is not None and not math.isnan(number)]
    return pick(known) if known else None


def _overflown(size: float | None) -> float | None:
    return math.inf if size is not None and math.isnan(size) else size


def _difference(minuend: float, subtrahend: float) -> float | None:
    return _known(minuend - subtrahend)


def _known(number: float) -> float | None:
    """The number, or None for NaN: ∞ − ∞ says nothing about a ratio."""
    return None if math.isnan(number) else number


def _log10(number: float) -> float:
    return math.log10(number) if number > 0 else -math.inf


def _int(subject: int | str) -> int:
    if isinstance(subject, str):
        raise TypeError(f"this quantity is about values or ops, not about the parameter {subject!r}")
    return subject
