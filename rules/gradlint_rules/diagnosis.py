"""What an ailing model loses or gains on the way from its output back, by cause: the question the flow rules share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from gradlint.finding import SEVERITIES, Claim, Factor, Related, Severity
from gradlint.graph.ir import Graph, Op, Param
from gradlint.graph.memo import remembered
from gradlint.graph.place import place
from gradlint.probe import attribution
from gradlint.probe.health import Facts, Health, judge
from gradlint.probe.route import Route, series, widest
from gradlint_rules.passage import SHAPING, after, weights

# He et al. 2015 eq. 10 for the rectifiers; 1 (LeCun) keeps the variance of the others near 0, where φ′ = 1.
# A sine is kept in its linear part by √2 too (Sitzmann et al. 2020: √6/ω₀ uniform bounds, ω₀ counted as gain).
NEEDED_GAIN = {
    "relu": 2**0.5,
    "relu6": 2**0.5,
    "leaky_relu": 2**0.5,
    "gelu": 2**0.5,
    "silu": 2**0.5,
    "elu": 1.25**0.5,
    "sin": 2**0.5,
}
SATURATING = frozenset({"sigmoid", "tanh", "hardsigmoid", "hardtanh", "softsign", "logsigmoid", "tanhshrink"})
NORMALISED = "norm"

Kind = Literal["vanishing", "exploding", "blow-up"]

# Limits by statistic of gradlint.probe.health, least severe first (research/signal.md §4); m and delta fall.
# m: plain SGD fails in 60 % of cases from -3.5 to -3 (a note: Adam learns them all), in nearly all below -3.5, where
# Adam fails in a quarter; Adam fails in 60 % and more below -6 (gradlint.probe.health, benchmarks/calibration.py).
# A gradient may be small beside its weight because the weight is large (an embedding ~ N(0, 1)), so it must have been
# lost on the way as well: delta, the gradient's change, tells nets that fail from nets that learn at 2 decades, and
# none learns at 4 (research/field.md §5).
VANISHING: tuple[tuple[Severity, float, float], ...] = (
    ("info", -3.0, -2.0),
    ("warning", -3.5, -4.0),
    ("warning", -5.0, -2.0),
    ("error", -6.0, -2.0),
)
EXPLODING: tuple[tuple[Severity, float], ...] = (("warning", 2.0), ("error", 3.0))
MILDER: Mapping[Severity, Severity] = {"error": "warning", "warning": "info", "info": "info"}
BLOW_UP: tuple[tuple[Severity, float], ...] = (("warning", 1.5), ("error", 3.0))
SAME_RATE = 0.5  # of a stretch's change per op from which on the ops beside it belong to it


@dataclass(frozen=True)
class Layer:
    """A weighted op of the stretch: the gain of its weight and the gain that the activation after it needs."""

    op: Op
    param: Param
    activation: str  # the function of the next activation on the way, "" when none follows
    gain: float  # RMS of the weight × √fan_in

    @property
    def excess(self) -> float:
        """log10(gain ÷ needed gain): negative where the init is too small for the activation."""
        needed = NEEDED_GAIN.get(self.activation, 1.0)
        return math.log10(self.gain / needed) if self.gain > 0 else -math.inf


@dataclass(frozen=True)
class Diagnosis:
    """The stretch of the widest way from input to output on which a model's signal is lost or gained.

    `ops` runs from the first to the last op of the stretch; `decades` is the gradient's change over it (negative where
    it is lost on the way back) and `factors` holds one entry an op.
    """

    graph: Graph
    health: Health
    kind: Kind
    severity: Severity
    limit: float
    ops: tuple[Op, ...]
    factors: tuple[Factor, ...]
    layers: tuple[Layer, ...]

    @property
    def decades(self) -> float:
        """The gradient's change over the stretch, log10."""
        return sum(factor.decades for factor in self.factors)

    @property
    def module(self) -> str | None:
        """The innermost module that holds the stretch, or None when that is the whole model."""
        return common(self.ops) or None

    def cost(self, ops: Iterable[Op]) -> float:
        """The decades of these ops alone."""
        wanted = {op.index for op in ops}
        return sum(factor.decades for factor in self.factors if factor.op in wanted)

    def of_kind(self, *kinds: str) -> tuple[Op, ...]:
        """The ops of the stretch of these kinds."""
        return tuple(op for op in self.ops if op.kind in kinds)

    @property
    def weighted(self) -> tuple[Op, ...]:
        """The ops of the stretch that carry the signal through a weight, those that a norm follows included."""
        return tuple(op for op in self.ops if op.index in weights(self.graph))

    @property
    def costliest(self) -> Op:
        """The first op of the sort that costs or gains most in all: a weight, a sigmoid, a custom function …"""
        totals: dict[str, float] = {}
        for factor in self.factors:
            totals[factor.label] = totals.get(factor.label, 0.0) + factor.decades
        worst = max(totals, key=lambda label: abs(totals[label]))
        return self.graph.ops[next(factor.op for factor in self.factors if factor.label == worst)]

    @property
    def saturating(self) -> tuple[Op, ...]:
        """The bounded activations on the stretch. Gates are not on it: the widest way passes beside them."""
        return tuple(op for op in self.of_kind("activation") if op.function in SATURATING)

    @property
    def indices(self) -> tuple[int, ...]:
        """The op indices of the stretch, of its layers and of what reads the parameter behind the verdict, in order."""
        worst = {"vanishing": self.health.weakest, "exploding": self.health.strongest}.get(self.kind, "")
        reading = {op.index for op in self.graph.ops if worst in op.params}
        return tuple(sorted({op.index for op in self.ops} | {layer.op.index for layer in self.layers} | reading))

    @property
    def ends(self) -> tuple[int, int]:
        """The value ids before and after the stretch: the subject of "gradient-change"."""
        return self.graph.data_inputs(self.ops[0])[0], self.ops[-1].outputs[0]

    def claim(self) -> Claim:
        """The statement behind the verdict: what the probe has to bear out."""
        if self.kind == "vanishing":
            return Claim("relative-gradient", (self.health.weakest,), self.limit, "below")
        if self.kind == "exploding":
            return Claim("elasticity-excess", (self.health.strongest, _last(self.graph)), self.limit, "above")
        return Claim("activation-size", self.graph.outputs[:1], self.limit, "above")

    def numbers(self) -> dict[str, tuple[int | str, ...]]:
        """What to print beside the claim."""
        return {"gradient-change": self.ends, "activation-change": self.ends}


def diagnose(graph: Graph, facts: Facts, *kinds: Kind) -> Diagnosis | None:
    """The stretch that ails the model, when what ails it most is of one of these kinds; None for a healthy one."""
    found = _diagnose(graph, facts)
    return found if found is not None and found.kind in kinds else None


@remembered
def _diagnose(graph: Graph, facts: Facts) -> Diagnosis | None:
    health = judge(graph, facts)
    found = verdict(health)
    route = health.route or widest(graph, lambda path: 0.0)
    if found is None or route is None:
        return None
    kind, severity, limit = found
    if kind == "exploding" and _normalised(graph, health.strongest):
        severity = MILDER[severity]
    severity = "info" if health.state == "unknown" else severity  # the prediction's band straddles the limit
    forward = kind == "blow-up"
    sizes = facts.profile.activation if forward else facts.profile.gradient
    factors = stretch(graph, route, {value: size for value, size in sizes.items() if size < math.inf}, forward=forward)
    if not factors:
        return None
    ops = tuple(graph.ops[factor.op] for factor in factors)
    return Diagnosis(
        graph, health, kind, severity, limit, ops, factors, tuple(layers(graph, _with_first(graph, route, ops)))
    )


def _with_first(graph: Graph, route: Route, ops: tuple[Op, ...]) -> tuple[Op, ...]:
    """The ops of a stretch with the first op of the route before them when they begin right after it.

    The first layer makes the first value whose size is known, so no factor is its own, but its init counts.
    """
    begins = len(route.ops) > 1 and ops[0].index == route.ops[1]
    return (graph.ops[route.ops[0]], *ops) if begins else ops


def stretch(graph: Graph, route: Route, sizes: Mapping[int, float], *, forward: bool) -> tuple[Factor, ...]:
    """The factors of the part of the route on which the signal is lost or gained, first op first.

    It is the shortest part with most of the change (`gradlint.probe.attribution`), and what goes on in the same way on
    either side of it: the first and last layers of a uniform chain are as guilty as those between.
    """
    found = (attribution.activation if forward else attribution.gradient)(graph, route, sizes)
    if found is None:
        return ()
    known = [(op, value) for op, value in zip(route.ops, route.values, strict=True) if value in sizes]
    order = 1.0 if forward else -1.0
    changes = [order * (sizes[value] - sizes[before]) for (_, before), (_, value) in pairwise(known)]
    ops = [graph.ops[op] for op, _ in known[1:]]
    indices = [op.index for op in ops]
    start, end = extended(changes, indices.index(found.ops[0]), indices.index(found.ops[-1]) + 1)
    return tuple(
        Factor(op.index, op.module_path, attribution.label(op), 0.0 if math.isnan(change) else change)
        for op, change in zip(ops[start:end], changes[start:end], strict=True)
    )


def extended(changes: Sequence[float], start: int, end: int) -> tuple[int, int]:
    """Start and end (exclusive) of a run, moved outwards by up to three ops at a time while these change as it does."""
    total = sum(changes[start:end])
    if not math.isfinite(total):
        return start, end
    least = SAME_RATE * abs(total) / (end - start)
    sign = math.copysign(1.0, total)
    while n := next((n for n in (1, 2, 3) if n <= start and sign * sum(changes[start - n : start]) >= least * n), 0):
        start -= n
    while n := next((n for n in (1, 2, 3) if sign * sum(changes[end : end + n]) >= least * n), 0):
        end = min(end + n, len(changes))
    return start, end


def verdict(health: Health) -> tuple[Kind, Severity, float] | None:
    """What ails the model most, how much, and the limit of the statistic that says so; None for a healthy one."""
    delta = 0.0 if health.delta is None else health.delta
    m = [(s, m) for s, m, d in VANISHING if health.m is not None and health.m < m and (delta < d)]
    c = [(s, limit) for s, limit in EXPLODING if health.c is not None and health.c > limit]
    s = [(s, limit) for s, limit in BLOW_UP if health.s is not None and health.s > limit]
    graded: tuple[tuple[Kind, list[tuple[Severity, float]]], ...] = (("exploding", c), ("blow-up", s), ("vanishing", m))
    worst = [(kind, *grades[-1]) for kind, grades in graded if grades]
    return min(worst, key=lambda found: SEVERITIES.index(found[1]), default=None)


def _normalised(graph: Graph, path: str) -> bool:
    """Whether a norm follows what the parameter weighs, so that the loss hardly depends on its scale.

    A large gradient then lets the weight grow and shrinks its own next steps (Arora, Li & Lyu 2019): the net needs care
    but is not lost. Of 25-layer nets with batch norm and no skip all trained with SGD and 10 of 18 with Adam
    (research/signal.md §5).
    """
    reading = [op for op in graph.ops if path in op.params]
    return any(found.kind == "norm" for op in reading for found in after(graph, op, SHAPING | {"activation"}))


def layers(graph: Graph, ops: Sequence[Op]) -> Iterable[Layer]:
    """The weighted ops among these whose weight is known, with the activation that follows each before the next one.

    A number that the result is multiplied with on the way counts towards the gain. A layer that a norm follows is left
    out: its gain does not matter.
    """
    mine = weights(graph)
    for position, op in enumerate(ops):
        param = next((graph.params[path] for path in mine.get(op.index, ())), None)
        if param is None or param.rms is None:
            continue
        scale, function = _following(ops[position + 1 :], mine)
        if function != NORMALISED:
            yield Layer(op, param, function, scale * param.rms * math.sqrt(max(1, param.fan_in)))


def _following(ops: Sequence[Op], mine: Mapping[int, tuple[str, ...]]) -> tuple[float, str]:
    """The numbers that a layer's output is multiplied with, and the activation after it, "" for none."""
    scale = 1.0
    for op in ops:
        if op.kind == "norm":
            return scale, NORMALISED
        if op.index in mine:
            return scale, ""
        if op.kind == "activation" or op.function in NEEDED_GAIN:
            return scale, op.function
        scalar = op.attrs.get("scalar")
        if op.kind == "mul" and isinstance(scalar, int | float) and scalar:
            scale *= abs(scalar) if op.function == "mul" else 1 / abs(scalar)
    return scale, ""


def _last(graph: Graph) -> str:
    """The weight of the last layer that every way through the model passes."""
    mine = weights(graph)
    return mine[series(graph)[-1]][0]


def common(ops: Iterable[Op]) -> str:
    """The innermost module path that all the ops lie in, "" for the root."""
    paths = [op.module_path.split(".") for op in ops]
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


def related(graph: Graph, ops: Sequence[Op], label: str) -> tuple[Related, ...]:
    """The last of the ops as a further place, when it is not on the line of the first."""
    spans = [place(graph, op) for op in (ops[0], ops[-1])]
    return () if spans[0] == spans[1] else (Related(spans[1], ops[-1].module_path, label),)
