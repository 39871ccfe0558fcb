"""A recipe and a stretch make a candidate: the steps to try, their title and their price."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from gradlint.finding import Finding
from gradlint.fix import cost, wording
from gradlint.fix.candidate import Candidate, Guard, Initialise, Normalise, Rescale, Score, Skip, Step, Swap
from gradlint.fix.fusion import fusions
from gradlint.fix.lookup import softenings
from gradlint.fix.postnorm import pre_norm
from gradlint.fix.recipes import Recipe, recipes
from gradlint.fix.residual import branch_ends
from gradlint.fix.stretch import Layer, Stretch, bias_of, stretch
from gradlint.graph.ir import Graph, Op

# Fewer samples than this make BatchNorm's statistics noise (Wu & He 2018, fig. 1).
SMALL_BATCH = 8
# Fewer features than this leave a LayerNorm little but signs.
FEW_FEATURES = 4
# RMS·√fan_in outside this band is an initialisation that no activation asks for; torch's default for nn.Linear is 0.58.
SOUND_GAIN = (0.3, 3.0)
EQUAL = 1e-6  # standard deviation over largest entry below which all entries count as one number
MOST = 0.5  # share of the model's layers from which on a stretch is taken for all of them
SATURATING = frozenset(
    {"sigmoid", "tanh", "softsign", "hardtanh", "hardsigmoid", "logsigmoid", "softmax", "log_softmax", "softmin"}
)
UNBOUNDED = frozenset({"exp", "square", "pow", "sinh", "cosh"})


@dataclass(frozen=True)
class Matched:
    """The initialisation that keeps the signal's size through a layer followed by an activation."""

    scheme: str
    gain: float


# Gains: He et al. 2015 eq. 10 (ReLU); torch.nn.init.calculate_gain (tanh 5/3); Klambauer et al. 2017 (SELU);
# the others 1/√E[φ(z)²] for z ~ N(0,1), by quadrature.
MATCHED: Mapping[str, Matched] = {
    "relu": Matched("kaiming_normal", math.sqrt(2.0)),
    "relu6": Matched("kaiming_normal", math.sqrt(2.0)),
    "leaky_relu": Matched("kaiming_normal", math.sqrt(2.0 / (1.0 + 0.01**2))),
    "prelu": Matched("kaiming_normal", math.sqrt(2.0 / (1.0 + 0.25**2))),
    "elu": Matched("normal", 1.2452),
    "celu": Matched("normal", 1.2452),
    "gelu": Matched("normal", 1.5335),
    "silu": Matched("normal", 1.6765),
    "mish": Matched("normal", 1.4868),
    "hardswish": Matched("normal", 1.7367),
    "softplus": Matched("normal", 1.0419),
    "selu": Matched("lecun_normal", 1.0),
    "tanh": Matched("xavier_normal", 5.0 / 3.0),
    "sin": Matched("siren", math.sqrt(6.0)),
}
IRNN_INPUT = 1e-3  # standard deviation of the input weights (Le, Jaitly & Hinton 2015, §4)
PLAIN = Matched("xavier_normal", 1.0)


def candidates(graph: Graph, finding: Finding, loss: str) -> list[Candidate]:
    """The changes to try for a finding, best evidence first; those that do not apply to its stretch are left out."""
    scope = _scope(graph, finding)
    found = [build(recipe, scope, finding) for recipe in recipes(finding, loss)]
    return list({candidate.steps: candidate for candidate in found if candidate is not None}.values())


def _scope(graph: Graph, finding: Finding) -> Stretch:
    """The finding's stretch, or the whole graph where that says nothing of the trunk or covers most of it.

    A stretch holds most of what is lost, not all of it: nobody replaces 18 of 20 sigmoids.
    """
    wide = stretch(graph, ())
    narrow = stretch(graph, _named(finding))
    share = len(narrow.layers) / max(1, len(wide.layers))
    return narrow if len(narrow.layers) > 1 and share < MOST else replace(wide, named=narrow.named)


def build(recipe: Recipe, scope: Stretch, finding: Finding) -> Candidate | None:
    """The recipe applied to a stretch, or None when one of its parts finds nothing to change there."""
    parts: list[tuple[Step, ...]] = []
    for name, builder in BUILDERS.items():
        if getattr(recipe, name):
            steps = builder(recipe, scope, finding)
            if not steps:
                return None
            parts.append(steps)
    steps = tuple(dict.fromkeys(step for part in parts for step in part))
    parameters, work = cost.parameters(scope.graph, steps), cost.work(scope, steps)
    return Candidate(
        title=wording.title(recipe, scope, parts),
        steps=steps,
        price=wording.price(recipe, scope, steps, parameters, work),
        parameters=parameters,
        work=work,
        edits=len(parts) + (recipe.init == "lsuv"),  # lsuv is an initialisation and a pass over data
        variant="guard" if recipe.guard else "",
    )


def _swaps(recipe: Recipe, scope: Stretch, finding: Finding) -> tuple[Step, ...]:
    """The activations of the stretch that the recipe's one would replace: for a cause in the units, those it names."""
    replaced = [op for op in scope.activations if replaceable(op, recipe.activation)]
    return tuple(Swap(op.index, recipe.activation) for op in replaced)


def replaceable(op: Op, function: str) -> bool:
    """Whether `function` in this op's place is a repair: of a saturating or unbounded one, or a smoother ReLU."""
    if op.function in SATURATING | UNBOUNDED:
        return op.function != function
    return op.function in ("relu", "relu6") and function not in ("relu", "tanh")


def _initialisations(recipe: Recipe, scope: Stretch, finding: Finding) -> tuple[Step, ...]:
    return INITS[recipe.init](recipe, scope)


def _matched(recipe: Recipe, scope: Stretch) -> tuple[Step, ...]:
    return _per_layer(scope, lambda layer, place: _draw(scope.graph, layer, _match(recipe, layer), first=not place))


def _xavier(recipe: Recipe, scope: Stretch) -> tuple[Step, ...]:
    """Gain 1 everywhere: at depth, tanh with its gain 5/3 is chaotic (Schoenholz et al. 2017)."""
    return _per_layer(scope, lambda layer, place: _draw(scope.graph, layer, PLAIN, first=not place))


def _orthogonal(recipe: Recipe, scope: Stretch) -> tuple[Step, ...]:
    """The gain of the activation, or 1 for a bounded one, where an orthogonal weight keeps every direction."""

    def draw(layer: Layer, place: int) -> tuple[Step, ...]:
        bounded = layer.activation is not None and layer.activation.function in SATURATING
        gain = 1.0 if bounded and not recipe.activation else _match(recipe, layer).gain
        return _draw(scope.graph, layer, Matched("orthogonal", gain), first=not place)

    return _per_layer(scope, draw)


def _default(recipe: Recipe, scope: Stretch) -> tuple[Step, ...]:
    return _per_layer(scope, lambda layer, place: _draw(scope.graph, layer, Matched("default", 1.0), first=not place))


def _lsuv(recipe: Recipe, scope: Stretch) -> tuple[Step, ...]:
    """Orthogonal weights, then each divided by the standard deviation of its output (Mishkin & Matas 2016)."""
    drawn = _orthogonal(recipe, scope)
    return *drawn, *(Rescale(layer.op.index, layer.param.path) for layer in _own_weights(scope) if layer.param)


def _per_layer(scope: Stretch, draw: Callable[[Layer, int], tuple[Step, ...]]) -> tuple[Step, ...]:
    return tuple(step for place, layer in enumerate(_own_weights(scope)) for step in draw(layer, place))


def _own_weights(scope: Stretch) -> list[Layer]:
    """The stretch's layers, constant ones that the finding names, and those out of proportion; one a parameter."""
    inside = {layer.op.index for layer in scope.layers}
    chosen = [
        layer
        for layer in scope.everywhere
        if layer.op.index in inside or _unsound(layer) or (layer.op.index in scope.named and _constant(layer))
    ]
    return list({layer.param.path: layer for layer in reversed(chosen) if layer.param}.values())[::-1]


def _unsound(layer: Layer) -> bool:
    """Whether the weight is out of proportion; one that is zero may be so on purpose."""
    gain = layer.gain
    return gain is not None and gain > 0 and not SOUND_GAIN[0] <= gain <= SOUND_GAIN[1]


def _constant(layer: Layer) -> bool:
    """Whether all entries of the weight are one number, up to rounding."""
    param = layer.param
    return param is not None and param.std is not None and param.std <= EQUAL * (param.abs_max or 0.0)


def _match(recipe: Recipe, layer: Layer) -> Matched:
    """The initialisation for the activation that follows the layer once the recipe is applied."""
    op = layer.activation
    if op is None:
        return PLAIN
    swapped = bool(recipe.activation) and replaceable(op, recipe.activation)
    return MATCHED.get(recipe.activation if swapped else op.function, PLAIN)


def _draw(graph: Graph, layer: Layer, matched: Matched, *, first: bool) -> tuple[Step, ...]:
    """The layer's weight drawn anew, its bias zero (torch's default scheme draws the bias too)."""
    if layer.param is None:
        return ()
    gain = _siren(graph, layer, first=first) if matched.scheme == "siren" else matched.gain
    weight = Initialise(layer.param.path, matched.scheme, gain, layer.fan_in, layer.fan_out)
    bias = bias_of(graph, layer.op)
    if bias is None:
        return (weight,)
    scheme = "default_bias" if matched.scheme == "default" else "zeros"
    return weight, Initialise(bias.path, scheme, 1.0, layer.fan_in, layer.fan_out)


def _siren(graph: Graph, layer: Layer, *, first: bool) -> float:
    """Bound × √fan_in of a layer before sin(ω·z): √6/ω, for the first one 1/√fan_in (Sitzmann et al. 2020, §3.2)."""
    if first:
        return 1.0 / math.sqrt(layer.fan_in)
    scales = (graph.ops[index] for value in layer.op.outputs for index in graph.values[value].consumers)
    omega = next((op.attrs.get("scalar") for op in scales if op.kind == "mul"), None)
    return math.sqrt(6.0) / (abs(omega) if isinstance(omega, (int, float)) and omega else 1.0)


def _depth(recipe: Recipe, scope: Stretch) -> tuple[Step, ...]:
    """Last weights of the residual branches × 1/√branches (GPT-2, Radford et al. 2019 §2.3)."""
    ends = branch_ends(scope.graph)
    return tuple(Initialise(end.path, "scale", 1.0 / math.sqrt(len(ends))) for end in ends) if len(ends) > 1 else ()


def _zero(recipe: Recipe, scope: Stretch) -> tuple[Step, ...]:
    """Last weights of the residual branches zero: blocks start as the identity (Goyal et al. 2017 §5.1; Fixup)."""
    ends = branch_ends(scope.graph)
    return tuple(Initialise(end.path, "zeros") for end in ends) if len(ends) > 1 else ()


def _norms(recipe: Recipe, scope: Stretch, finding: Finding) -> tuple[Step, ...]:
    """Norms after the stretch's layers: not after heads, normalised ones, or projections that attention multiplies."""
    bare = (layer for layer in scope.layers if not layer.normalised and layer not in scope.heads and not layer.gate)
    found = (fitting(scope, layer) for layer in bare)
    steps = [step for step in found if step is not None]
    if recipe.norm == "rms_norm":
        return tuple(Normalise(step.op, "rms_norm") for step in steps if step.function == "layer_norm")
    return tuple(steps)


def fitting(scope: Stretch, layer: Layer) -> Normalise | None:
    """The norm that fits a layer's output: by its layout, the batch, the task, and what the model uses; or None."""
    shape = scope.graph.values[layer.op.outputs[0]].shape
    used = {op.function for op in scope.graph.ops if op.kind == "norm"}
    if layer.op.kind == "conv":
        batched = scope.batch >= SMALL_BATCH and not scope.image_output
        return Normalise(layer.op.index, "batch_norm") if batched else _group_norm(layer.op.index, shape)
    samples = len(shape) == 2 and shape[0] == scope.batch >= SMALL_BATCH
    if samples and not used & {"layer_norm", "rms_norm"}:
        return Normalise(layer.op.index, "batch_norm")
    return Normalise(layer.op.index, "layer_norm") if shape and shape[-1] >= FEW_FEATURES else None


def _group_norm(op: int, shape: tuple[int, ...]) -> Normalise | None:
    channels = shape[1] if len(shape) > 2 else 1
    groups = next(g for g in (32, 16, 8, 4, 2, 1) if channels % g == 0 and (channels // g > 1 or g == 1))
    return Normalise(op, "group_norm", groups)


def _skips(recipe: Recipe, scope: Stretch, finding: Finding) -> tuple[Step, ...]:
    return tuple(Skip(block.start.index, block.end.index, block.source) for block in scope.blocks)


def _projections(recipe: Recipe, scope: Stretch, finding: Finding) -> tuple[Step, ...]:
    """Skips around all blocks, projected where the shape changes; none where identities fit around most of them."""
    if len(scope.changing) <= len(scope.blocks):
        return ()
    rows = sorted((*scope.blocks, *scope.changing), key=lambda block: block.start.index)
    return tuple(
        Skip(block.start.index, block.end.index, block.source, block.stride, block.start.kind == "conv")
        for block in rows
    )


def _prenorms(recipe: Recipe, scope: Stretch, finding: Finding) -> tuple[Step, ...]:
    return pre_norm(scope.graph)


def _recurrences(recipe: Recipe, scope: Stretch, finding: Finding) -> tuple[Step, ...]:
    return tuple(step for op in scope.recurrent for step in RECURRENT[recipe.recurrent](scope.graph, op))


def _irnn(graph: Graph, op: Op) -> tuple[Step, ...]:
    """ReLU with an identity recurrence, small input weights and zero biases (Le, Jaitly & Hinton 2015, §3)."""
    if op.function != "rnn_tanh":
        return ()
    hidden = _hidden_weights(graph, op)
    biases = [Initialise(path, "zeros") for path in op.params if len(graph.params[path].shape) == 1]
    others = [path for path in op.params if len(graph.params[path].shape) == 2 and path not in hidden]
    inputs = [Initialise(path, "normal", IRNN_INPUT, 1) for path in others]
    relu = "rnn_relu_cell" if op.attrs.get("cell") else "rnn_relu"
    return Swap(op.index, relu), *(Initialise(path, "eye") for path in hidden), *inputs, *biases


def _orthogonal_recurrence(graph: Graph, op: Op) -> tuple[Step, ...]:
    return tuple(Initialise(path, "orthogonal_gates") for path in _hidden_weights(graph, op))


def _forget_bias(graph: Graph, op: Op) -> tuple[Step, ...]:
    """The forget gate starts open: of the biases, two in torch, its is 1 and the rest is 0 (Jozefowicz et al. 2015)."""
    if op.function != "lstm":
        return ()
    biases = [path for path in op.params if len(graph.params[path].shape) == 1]
    opened = [path for path in biases if "bias_ih" in path]
    return tuple(Initialise(path, "forget_bias" if path in opened else "zeros") for path in biases if opened)


def _hidden_weights(graph: Graph, op: Op) -> list[str]:
    """The recurrent weights: hidden × hidden for each gate, told from the input's by torch's order (ih, hh) a layer."""
    matrices = [path for path in op.params if len(graph.params[path].shape) == 2]
    return [path for path in matrices if "weight_hh" in path] or matrices[1::2]


def _outputs(recipe: Recipe, scope: Stretch, finding: Finding) -> tuple[Step, ...]:
    """The output activation that the finding names, at every step that it makes a part of the output in.

    For a finding about the output as such it is the last one.
    """
    named = _named(finding)
    chosen = [op for op in scope.outputs if op.index in named]
    chosen = chosen or (list(scope.outputs[-1:]) if finding.family == "output" else [])
    last = chosen[-1:] == list(scope.outputs[-1:])
    if (recipe.inner and last) or (recipe.output != "identity" and not last):
        return ()
    alike = [op for op in chosen if (op.function, op.span) == (chosen[-1].function, chosen[-1].span)]
    return tuple(Swap(op.index, recipe.output) for op in alike if op.function != recipe.output)


def _drops(recipe: Recipe, scope: Stretch, finding: Finding) -> tuple[Step, ...]:
    return (Swap(finding.ops[0], "identity"),) if len(finding.ops) > 1 else ()


def _guards(recipe: Recipe, scope: Stretch, finding: Finding) -> tuple[Step, ...]:
    """Bounds for arguments of the finding's ops: the epsilon; for an exponential what the clamp after it allows."""
    ops = [scope.graph.ops[index] for index in _named(finding)]
    limits = [limit for op in ops if isinstance(limit := op.attrs.get("max"), int | float) and limit > 0]
    exponentials = tuple(Guard(op.index, math.log(limits[0])) for op in ops if op.function in EXPONENTIAL and limits)
    return exponentials or tuple(Guard(op.index, recipe.guard) for op in ops if op.function in GUARDED)


def _fusions(recipe: Recipe, scope: Stretch, finding: Finding) -> tuple[Step, ...]:
    return fusions(scope.graph, _named(finding))


def _softenings(recipe: Recipe, scope: Stretch, finding: Finding) -> tuple[Step, ...]:
    return softenings(scope.graph, _named(finding))


def _losses(recipe: Recipe, scope: Stretch, finding: Finding) -> tuple[Step, ...]:
    """The loss of logits in place of the same one of probabilities."""
    loss = LOGITS.get(str(finding.predicted.get("loss")))
    return (Score(loss),) if loss else ()


def _named(finding: Finding) -> tuple[int, ...]:
    return finding.ops or (() if finding.op is None else (finding.op,))


LOGITS: Mapping[str, str] = {"nll": "ce", "bce": "bce_logits"}
EXPONENTIAL = frozenset({"exp", "expm1"})
GUARDED = frozenset({"log", "log2", "log10", "sqrt", "rsqrt", "div", "reciprocal", "acos", "asin", "pow"})
Builder = Callable[[Recipe, Stretch, Finding], tuple[Step, ...]]
BUILDERS: Mapping[str, Builder] = {
    "activation": _swaps,
    "init": _initialisations,
    "norm": _norms,
    "skip": _skips,
    "project": _projections,
    "prenorm": _prenorms,
    "recurrent": _recurrences,
    "output": _outputs,
    "drop": _drops,
    "fused": _fusions,
    "soft": _softenings,
    "loss": _losses,
    "guard": _guards,
}
INITS: Mapping[str, Callable[[Recipe, Stretch], tuple[Step, ...]]] = {
    "matched": _matched,
    "xavier": _xavier,
    "orthogonal": _orthogonal,
    "lsuv": _lsuv,
    "default": _default,
    "depth": _depth,
    "zero": _zero,
}
RECURRENT: Mapping[str, Callable[[Graph, Op], tuple[Step, ...]]] = {
    "irnn": _irnn,
    "orthogonal-rnn": _orthogonal_recurrence,
    "forget-bias": _forget_bias,
}
