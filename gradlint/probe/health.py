"""Will it train? The verdict of the trainability study, read from a predicted or a measured profile alike."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from gradlint.graph.ir import Graph, Op
from gradlint.probe.route import Number, Route, applications, aspect, chain, merges, series, weights, widest
from gradlint.profile import Measurement, Signal

State = Literal["healthy", "warning", "error", "unknown"]
Kind = Literal["none", "vanishing", "exploding", "blow-up", "too deep"]
Facts = Signal | Measurement

# Calibrated on 112 + 271 models trained with SGD and Adam, three learning rates each (research/signal.md §4), and
# refitted on the 172 of benchmarks/calibration.py (AUC 0.972 SGD, 0.949 Adam). Share of models that fail there: with
# SGD 4 % above m = -2, 7 % from -3 to -2, 60 % from -3.5 to -3, nearly all below; with Adam 4 % above -3.5, a quarter
# down to -5, 60 % from -7 to -6, 94 % below -8.
Limits = Mapping[str, tuple[float, float]]  # statistic → (warning, error)
# Depth over width, where theory has its limit: at 1 the departure from the mean is as large as the mean
# (gradlint.probe.route.aspect). Of fifteen 50-layer nets of 64 units (0.77) twelve fail with SGD, ten with Adam.
ASPECT = (0.5, 1.0)
PLAIN = 24  # hidden layers from which on it counts: plain nets degrade somewhere between 18 and 34 (He et al. 2016)
LIMITS: Mapping[str, Limits] = {
    "sgd": {"m": (-3.0, -4.0), "c": (2.0, 3.0), "s": (1.5, 2.5), "r": ASPECT},
    "adam": {"m": (-5.0, -7.0), "c": (2.0, 3.0), "s": (2.0, 3.0), "r": ASPECT},
    # No optimiser told: a warning where SGD fails at every rate, an error where Adam needs care as well (85 % of those
    # nets fail with both). For c and s a warning where one needs care, an error where both fail.
    "any": {"m": (-3.5, -5.0), "c": (2.0, 3.0), "s": (1.5, 3.0), "r": ASPECT},
}
# |log10| of the gradient that reaches the first values over that at the last (research/field.md §5: 18 of 24 failing
# nets at 2, none of 8 that learn). It depends on shapes (pooling, strides), so it supports a verdict and makes none.
DELTA = (2.0, 4.0)
# A recurrent net without gates forgets what lies further back than its gradient reaches: a step counts as reached while
# the gradient at the input there is within this many decades of the largest one.
REACH = 6.0
SHORT = 0.25  # share of the steps that must be reached
GAINS = frozenset({"mul", "norm"})  # ops whose parameters scale the signal channel by channel
FAST = -1.0  # log10(g/w) above which a weight changes by itself within few steps
STEPS = 16  # fewer steps are not judged
GATED = frozenset({"lstm", "gru"})  # their gates open in training (Jozefowicz et al. 2015): a short reach is not final

_STATES: tuple[State, ...] = ("healthy", "unknown", "warning", "error")
_KINDS: Mapping[str, Kind] = {"m": "vanishing", "c": "exploding", "s": "blow-up", "r": "too deep"}


@dataclass(frozen=True)
class Health:
    """The verdict and what it was read from; statistics are None where nothing was known.

    `m`: smallest log10(RMS g / RMS w) over the weights in series, for a loss of unit scale and without what a small
    start takes off. `c`: largest elasticity log10(‖g‖‖w‖) over the weights in series, per application, less that of
    the last one. `s`: log10 RMS of the output. `r`: hidden layers in series over the units they have, where they are
    many. `delta`: log10 RMS of the gradient at the first weighted op on the route less that at the output. `reach`:
    share of the time steps that a gradient reaches, by op.
    """

    state: State
    kind: Kind
    m: float | None = None
    c: float | None = None
    s: float | None = None
    r: float | None = None
    delta: float | None = None
    reach: Mapping[int, float] = field(default_factory=dict)
    weakest: str = ""  # the parameter that sets m
    strongest: str = ""  # the parameter that sets c
    route: Route | None = None
    reasons: tuple[str, ...] = ()

    def score(self, optimizer: str = "any") -> float:
        """How far on the way from the optimiser's limit of a warning (0) to that of an error (1) the worst one is."""
        known = {name: value for name in LIMITS[optimizer] if (value := getattr(self, name)) is not None}
        parts = [_position(value, LIMITS[optimizer][name]) for name, value in known.items() if not math.isnan(value)]
        return max(parts, default=-math.inf)


def _position(value: float, limits: tuple[float, float]) -> float:
    warning, error = limits
    return (value - warning) / (error - warning)


def judge(graph: Graph, facts: Facts, *, optimizer: str | None = None, around: Collection[int] = ()) -> Health:
    """The health of a model from what was predicted or measured.

    `optimizer` is "sgd", "adam" or "any"; None: the one that the facts name. `around` are ops of the graph that
    something not in it leads the signal past: a skip connection that is tried.

    The state is "unknown" when nothing is known about the weights in series, or when two standard deviations of a
    prediction straddle a limit.
    """
    limits = LIMITS[optimizer or facts.optimizer]
    facts = unblocked(facts)
    number = relative(graph, facts)
    route = widest(graph, number)
    c, strongest = chaos(graph, facts)
    m = None if route is None else route.width - loss_scale(graph, facts, route) + slow_start(graph, facts, route)
    weakest = "" if route is None else route.weakest
    behind = None if route is None else stream(graph, facts, route)
    if m is not None and behind is not None and behind[0] < min(m, limits["m"][0]):  # a bound decides where it is low
        m, weakest = behind
    statistics = {"m": m, "c": c, "s": size(graph, facts), "r": plainness(graph, around)}
    reach = {op: share for op, share in reaches(graph, facts).items() if graph.ops[op].function not in GATED}
    verdicts = [
        *_by_limits(statistics, limits, band(facts, route)),
        *_by_reach(reach),
        *_by_finiteness(facts),
    ]
    state, kind, _ = max(verdicts, key=lambda verdict: _STATES.index(verdict[0]), default=("healthy", "none", ""))
    known = state != "healthy" or any(value is not None for name, value in statistics.items() if name != "r")
    return Health(
        state=state if known else "unknown",
        kind=kind,
        **statistics,
        delta=None if route is None else change(facts, route),
        reach=reaches(graph, facts),
        weakest=weakest,
        strongest=strongest,
        route=route,
        reasons=tuple(reason for verdict, _, reason in verdicts if verdict == state),
    )


def unblocked(facts: Facts) -> Facts:
    """The measurement with its zero-initialised parameters moved, where one was taken; else the facts themselves."""
    return facts.unblocked if isinstance(facts, Measurement) and facts.unblocked is not None else facts


def relative(graph: Graph, facts: Facts) -> Number:
    """log10(RMS g / RMS w) by parameter; None for one that is frozen, unused, unknown, or zero and about to move."""

    def number(path: str) -> float | None:
        gradient, weight = _sizes(graph, facts, path)
        if gradient is None or weight is None:
            return None
        if weight == -math.inf:
            return -math.inf if gradient == -math.inf else None
        return gradient - weight

    return number


def loss_scale(graph: Graph, facts: Facts, route: Route) -> float:
    """log10 of the norm of a sample's loss gradient at the end of the route, as far as it is the loss's own doing.

    The limits are calibrated for cross-entropy with one label a sample, where the norm is about 1. A mean over many
    outputs (pixels, tokens) divides it, although their errors add up as soon as they agree; a loss whose scale is
    arbitrary ("unit", the user's own) counts both ways.
    """
    end = graph.values[route.values[-1]]
    gradient = facts.profile.gradient.get(end.id)
    if gradient is None or not math.isfinite(gradient) or not end.shape:
        return 0.0
    norm = gradient + 0.5 * math.log10(max(1, math.prod(end.shape))) + 0.5 * math.log10(max(1, end.shape[0]))
    return norm if facts.loss == "unit" or ":" in facts.loss else min(0.0, norm)


def slow_start(graph: Graph, facts: Facts, route: Route) -> float:
    """Decades that parameters behind the weakest weight take off its gradient by a small start that they soon leave.

    A head drawn far below 1/√(3 fan_in) on purpose (policies, Fixup) and a gain far below 1 (layer scale) hold the
    gradient back only until they have grown, which takes few steps when their own gradient is not small beside them.
    """
    mine = weights(graph)
    start = next(index for index in route.ops if route.weakest in mine.get(index, ()))
    return _small_start(graph, facts, [graph.ops[index] for index in route.ops if index > start])


def stream(graph: Graph, facts: Facts, route: Route) -> tuple[float, str] | None:
    """m of what lies before a value that every way passes, and the worst of its weights; None where there is no such.

    A way beside all weights carries no gradient for granted: where it ends in nothing (0.1 cos x at x = 0), every
    weight before is lost. A weight W of ordinary size, ‖W‖ = √fan_out, that makes the value v from unit inputs gets
    g = Σ δ xᵀ, at most ‖δ‖ √(fan_in P) when the P positions of a sample agree, so that log10(‖g‖/‖W‖) is at most
    log10(‖δ‖ √P). What a loss and a small start take off counts as it does for a weight.
    """
    number = relative(graph, facts)
    found = []
    for value in merges(graph):
        gradient, shape = facts.profile.gradient.get(value), graph.values[value].shape
        producer = graph.values[value].producer
        if gradient is None or math.isnan(gradient) or not shape or producer is None:
            continue
        channels = shape[1] if len(shape) > 3 else shape[-1]
        positions = math.prod(shape) / max(1, shape[0] * channels)
        most = gradient + 0.5 * math.log10(max(1, math.prod(shape))) + 0.5 * math.log10(max(1, positions))
        small = _small_start(graph, facts, [graph.ops[index] for index in route.ops if index > producer])
        found.append((most - loss_scale(graph, facts, route) + small, producer))
    if not found:
        return None
    m, last = min(found)
    paths = [path for index, paths in weights(graph).items() if index < last for path in paths]
    judged = [(size, path) for path in paths if (size := number(path)) is not None]
    return (m, min(judged)[1]) if judged else None


def _small_start(graph: Graph, facts: Facts, behind: Sequence[Op]) -> float:
    """Decades that these ops' small starts take off for some steps."""
    number, mine = relative(graph, facts), weights(graph)
    usual = {path: 0.0 for op in behind if op.kind in GAINS for path in _gains(graph, op)}
    last = next((mine[op.index][0] for op in reversed(behind) if op.index in mine), None)
    if last is not None:
        usual[last] = -0.5 * math.log10(3 * max(1, graph.params[last].fan_in))
    fast = [path for path in usual if (speed := number(path)) is not None and FAST <= speed < math.inf]
    return sum(max(0.0, usual[path] - (_sizes(graph, facts, path)[1] or 0.0)) for path in fast)


def _gains(graph: Graph, op: Op) -> tuple[str, ...]:
    """The trainable gains of an op that scales the signal."""
    found = graph.param(op) if op.kind == "norm" else None
    paths = op.params if op.kind == "mul" else (found.path,) if found else ()
    return tuple(path for path in paths if path in graph.params and graph.params[path].requires_grad)


def elasticity(graph: Graph, facts: Facts, path: str) -> float | None:
    """log10(‖g‖_F ‖w‖_F) of one parameter, which does not depend on its shape."""
    gradient, weight = _sizes(graph, facts, path)
    if gradient is None or weight is None:
        return None
    value = gradient + weight + math.log10(max(1, math.prod(graph.params[path].shape)))
    return None if math.isnan(value) else value


def chaos(graph: Graph, facts: Facts) -> tuple[float | None, str]:
    """c, the largest elasticity of the weights in series less that of the last one, and the parameter that sets it.

    A weight that is applied T times gets T gradients, whose sum is T times one of them where nothing grows on the way:
    an identity recurrence (Le, Jaitly & Hinton 2015). So the elasticity counts per application.
    """
    mine, times = weights(graph), applications(graph)
    found: list[tuple[float, str]] = []
    for index in series(graph):
        here = [
            (value - math.log10(times.get(path, 1)), path)
            for path in mine[index]
            if (value := elasticity(graph, facts, path)) is not None
        ]
        found += [max(here)] if here else []
    if not found or found[-1][0] == -math.inf:
        return None, ""
    top = max(found)
    return _finite(top[0] - found[-1][0]), top[1]


def size(graph: Graph, facts: Facts) -> float | None:
    """s, log10 RMS of the model's output, which starts near 0 in a net that trains; None for a loss of its own."""
    if isinstance(facts, Measurement):
        return None if facts.loss == "own" else _finite(facts.output_rms)
    if facts.loss == "own":
        return None
    known = (facts.profile.activation.get(v) for v in graph.outputs if graph.values[v].dtype.startswith("float"))
    return next((value for value in known if value is not None and not math.isnan(value)), None)


def plainness(graph: Graph, around: Collection[int] = ()) -> float | None:
    """r, depth over width (`gradlint.probe.route.aspect`), of a net of PLAIN hidden layers in series or more."""
    return aspect(graph, around) if len(chain(graph, around)) >= PLAIN else None


def band(facts: Facts, route: Route | None) -> float:
    """Two standard deviations of a predicted m (finite width, signal.md §1 item 14); 0 for a measured one."""
    return 0.0 if isinstance(facts, Measurement) or route is None else 2 * facts.profile.spread.get(route.weakest, 0.0)


def change(facts: Facts, route: Route) -> float | None:
    """log10 RMS of the gradient at the first known value of the route less that at the last."""
    known = [d for value in route.values if (d := facts.profile.gradient.get(value)) is not None]
    return _finite(known[0] - known[-1]) if known else None


def reaches(graph: Graph, facts: Facts) -> dict[int, float]:
    """Per recurrent op of enough steps, the share of them whose input gets a gradient within REACH of the largest."""
    if not isinstance(facts, Measurement):
        return {}
    return {op: reached(steps) for op, steps in facts.through_time.items() if len(steps) >= STEPS}


def reached(steps: tuple[float, ...]) -> float:
    """The share of time steps with a gradient within REACH decades of the largest."""
    top = max(steps)
    return 1.0 if top == -math.inf else sum(1 for step in steps if step >= top - REACH) / len(steps)


def grade(value: float, limits: tuple[float, float]) -> State:
    """The state of one statistic; limits that fall are lower bounds, limits that rise are upper bounds."""
    warning, error = limits
    sign = 1.0 if error > warning else -1.0
    if math.isnan(value) or sign * value > sign * error:
        return "error"
    return "warning" if sign * value > sign * warning else "healthy"


Judged = tuple[State, Kind, str]


def _by_limits(statistics: Mapping[str, float | None], limits: Limits, band: float) -> Iterable[Judged]:
    for name, value in statistics.items():
        if value is None:
            continue
        wide = band if name == "m" else 0.0
        low, state, high = (grade(value + shift, limits[name]) for shift in (-wide, 0.0, wide))
        if low != high:
            yield "unknown", _KINDS[name], f"{name} = {value:.1f} ± {wide:.1f} straddles a limit"
        elif state != "healthy":
            yield state, _KINDS[name], f"{name} = {value:.1f} (limit {limits[name][state == 'error']:g})"


def _by_reach(reach: Mapping[int, float]) -> Iterable[Judged]:
    for share in reach.values():
        if share < SHORT:
            yield "warning", "vanishing", f"a gradient reaches {share:.0%} of the time steps"


def _by_finiteness(facts: Facts) -> Iterable[Judged]:
    if not isinstance(facts, Measurement):
        return
    if facts.nonfinite_op is not None:
        yield "error", "blow-up", "the forward pass is not finite"
    elif facts.nonfinite_gradient_op is not None:
        yield "error", "exploding", "the gradient is not finite"


def _sizes(graph: Graph, facts: Facts, path: str) -> tuple[float | None, float | None]:
    """log10 RMS of the gradient and of the weight of a parameter."""
    if isinstance(facts, Measurement):
        measured = facts.params.get(path)
        if measured is None or measured.status in ("frozen", "unused", "none"):
            return None, None
        return measured.grad, measured.weight
    param = graph.params.get(path)
    if param is None or not param.rms or path in facts.zeros:
        return None, None
    return facts.profile.params.get(path), math.log10(param.rms)


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value
