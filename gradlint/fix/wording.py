"""Titles and prices of candidates, in the words a user writes in the model's source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gradlint.fix.candidate import (
    Bypass,
    Fuse,
    Guard,
    Initialise,
    Normalise,
    Prenormalise,
    Rescale,
    Score,
    Skip,
    Soften,
    Step,
    Swap,
)
from gradlint.fix.recipes import Recipe
from gradlint.fix.stretch import Stretch, is_offset
from gradlint.graph.ir import Graph, Op

LENGTH = 120
MODULES: Mapping[str, str] = {
    "relu": "nn.ReLU",
    "leaky_relu": "nn.LeakyReLU",
    "elu": "nn.ELU",
    "gelu": "nn.GELU",
    "silu": "nn.SiLU",
    "selu": "nn.SELU",
    "tanh": "nn.Tanh",
    "sigmoid": "nn.Sigmoid",
    "log_softmax": "nn.LogSoftmax",
    "softmax": "nn.Softmax",
    "batch_norm": "BatchNorm",
    "layer_norm": "nn.LayerNorm",
    "group_norm": "nn.GroupNorm",
    "rms_norm": "nn.RMSNorm",
}
FUNCTIONS: Mapping[str, str] = {"relu": "torch.relu", "tanh": "torch.tanh", "sigmoid": "torch.sigmoid"}
SCHEMES: Mapping[str, str] = {
    "kaiming_normal": "kaiming_normal_",
    "orthogonal": "orthogonal_",
    "default": "torch's default",
    "siren": "the siren bounds",
    "eye": "eye_",
}
BOUNDS: Mapping[str, str] = {
    "exp": "clamp the argument of {0} at {1:.3g} instead of its result",
    "div": "keep the denominator {1:g} away from 0",
    "reciprocal": "keep the denominator {1:g} away from 0",
    "acos": "keep the argument of {0} {1:g} inside -1 … 1",
    "asin": "keep the argument of {0} {1:g} inside -1 … 1",
}
SPECIAL: Mapping[str, str] = {
    "depth": "scale the last weight of {0} residual branches by 1/sqrt({0})",
    "zero": "zero-initialise the last weight of {0} residual branches",
    "forget-bias": "initialise the forget gate's bias with 1 and the other biases with 0",
    "orthogonal-rnn": "initialise the recurrent weights with orthogonal_",
}
FUSED: Mapping[str, tuple[str, str]] = {
    "log_softmax": ("log of softmax", "F.log_softmax"),
    "logsigmoid": ("log of sigmoid", "F.logsigmoid"),
    "negative_logsigmoid": ("log of 1 - sigmoid", "F.logsigmoid of the negative"),
    "logsumexp": ("log of a sum of exp", "torch.logsumexp"),
    "softmax": ("exp over a sum of exp", "torch.softmax"),
}
LOSSES: Mapping[str, str] = {
    "ce": "use cross_entropy (nn.CrossEntropyLoss), which takes logits, in place of nll_loss (nn.NLLLoss)",
    "bce_logits": "use nn.BCEWithLogitsLoss, which takes logits, in place of nn.BCELoss",
}
PRICES: Mapping[str, str] = {
    "batch_norm": "takes statistics of the batch: 8 or more samples a step, and train and eval mode differ",
    "layer_norm": "independent of the batch",
    "group_norm": "independent of the batch",
    "rms_norm": "independent of the batch; keeps the mean",
    "elu": "computes an exponential; its mean is nearer zero than leaky relu's, which costs a comparison",
    "gelu": "computes an error function",
    "silu": "computes a sigmoid",
    "selu": "computes an exponential; lecun_normal is kaiming_normal_ with nonlinearity='linear'; not with skips",
    "leaky_relu": "keeps a slope of 0.01 where relu has none; no exponential",
    "relu": "units can die at large learning rates",
    "tanh": "still saturates for large inputs",
    "lsuv": "the gains are those of the batch they were measured on",
    "depth": "changes only the scale at initialisation",
    "zero": "branches are the identity at first: their inner weights start to learn at the second step",
    "prenorm": "the last sum needs a final norm; shallow stacks may come out a little worse (Xiong et al. 2020)",
    "irnn": "unbounded state: clip gradients",
    "soft": "rows are mixed: where predictions are made, the row of the highest score can be taken",
    "fused": "the same function, finite for all numbers",
    "loss": "outputs stay logits: put the softmax or sigmoid where predictions are read; a checkpoint still loads",
    "output": "the output's range changes: put the activation that belongs to the loss where predictions are read",
}
LOADS = "a checkpoint still loads, but was trained for another function"
CHECKPOINT = "a checkpoint no longer loads"
WORK = "{0:.0%} more arithmetic in the forward pass"
SCRATCH = "for training from scratch"
NOTABLE = 0.01  # of a forward pass's multiply-adds: less is not worth a word
EPSILON = "entries beyond the bound get no gradient there"
PROJECTION = "identity only: a projection is needed at {0} more where the shape changes"
IMAGE = "not batchnorm: the output is an image, where absolute differences between samples matter"


@dataclass(frozen=True)
class Phrase:
    """One part of a title: in full, in few words, and the ops that say where."""

    text: str
    terse: str
    ops: Sequence[Op] = ()


def title(recipe: Recipe, scope: Stretch, parts: Sequence[Sequence[Step]]) -> str:
    """The edit in one line of at most 120 characters: with its places, else without, else in few words."""
    phrases = [_phrase(recipe, scope, steps) for steps in parts]
    placed = _join([phrase.text + _at(phrase.ops) for phrase in phrases])
    forms = (placed, _join([phrase.text for phrase in phrases]), _join([phrase.terse for phrase in phrases]))
    return next((form for form in forms if len(form) <= LENGTH), f"{forms[-1][: LENGTH - 1]}…")


def _phrase(recipe: Recipe, scope: Stretch, steps: Sequence[Step]) -> Phrase:
    kinds = {type(step) for step in steps}
    return next(writer for kind, writer in WRITERS.items() if kind in kinds)(recipe, scope.graph, steps)


def price(recipe: Recipe, scope: Stretch, steps: Sequence[Step], parameters: int, work: float) -> str:
    """What the candidate costs, most important first; it adds `parameters`, and `work` as a share of the model's."""
    norms = list(dict.fromkeys(step.function for step in steps if isinstance(step, Normalise)))
    keys = [recipe.activation, *norms, recipe.init, recipe.recurrent, "output" * bool(recipe.output)]
    keys += ["prenorm" * recipe.prenorm, "fused" * recipe.fused, "soft" * recipe.soft, "loss" * recipe.loss]
    texts = [f"{parameters} parameters more"] if parameters else []
    texts += [WORK.format(work)] if work >= NOTABLE else []
    texts += [PRICES[key] for key in keys if key in PRICES]
    texts += [IMAGE] if "group_norm" in norms and scope.image_output else []
    bare = len(scope.layers) - sum(isinstance(step, Skip) for step in steps)
    texts += [PROJECTION.format(bare)] if recipe.skip and bare > 0 else []
    return "; ".join([*texts, *_validity(recipe, scope.graph, steps)])


def _validity(recipe: Recipe, graph: Graph, steps: Sequence[Step]) -> list[str]:
    """Whether the change leaves a trained checkpoint of use: norms add entries, skips in a Sequential rename them."""
    builtin = {module.path for module in graph.modules if module.builtin and module.type == "Sequential"}
    starts = [graph.ops[step.start].module_path for step in steps if isinstance(step, Skip)]
    if recipe.norm or recipe.project or recipe.prenorm or any(path.rpartition(".")[0] in builtin for path in starts):
        return [CHECKPOINT]
    if recipe.activation or recipe.skip or recipe.drop or recipe.soft or recipe.output or recipe.recurrent == "irnn":
        return [LOADS]
    if recipe.init or recipe.recurrent:
        return [SCRATCH]
    return [EPSILON] if recipe.guard else []


def name_of(op: Op) -> str:
    """The op as its user wrote it: nn.Sigmoid for a module, torch.sigmoid, F.relu or .sigmoid() for a call."""
    if is_module(op):
        return f"nn.{op.module_type}"
    owner, _, function = op.name.rpartition(".")
    if owner == "torch.Tensor":
        return f".{function}()"
    return {"torch.nn.functional": f"F.{function}", "torch": f"torch.{function}"}.get(owner, op.function or op.kind)


def is_module(op: Op) -> bool:
    """Whether the call was made by torch's module for it, such as nn.ReLU."""
    return op.module_type.lower() == op.function.replace("_", "")


def _swapped(recipe: Recipe, graph: Graph, steps: Sequence[Step]) -> Phrase:
    ops = [graph.ops[step.op] for step in steps if isinstance(step, Swap)]
    function = next(step.function for step in steps if isinstance(step, Swap))
    names = " and ".join(dict.fromkeys(name_of(op) for op in ops))
    if recipe.recurrent == "irnn":
        text = "use nonlinearity='relu' in the rnn, with eye_ recurrent weights and zero biases"
        return Phrase(text, text, ops)
    count = f" in {len(ops)} places" if len(ops) > 1 else ""
    if function == "identity":
        return Phrase(f"remove {names}{count}", f"remove {names}", ops)
    new = MODULES[function] if any(is_module(op) for op in ops) else FUNCTIONS.get(function, f"F.{function}")
    return Phrase(f"replace {names} by {new}{count}", f"replace {len(ops)} {names} by {new}", ops)


def _initialised(recipe: Recipe, graph: Graph, steps: Sequence[Step]) -> Phrase:
    weights = [step for step in steps if isinstance(step, Initialise) and step.scheme not in ("zeros", "default_bias")]
    schemes = Counter(_scheme(step) for step in weights)
    text = SPECIAL.get(recipe.init or recipe.recurrent, "").format(len(steps))
    if text:
        return Phrase(text, text)
    name, number = schemes.most_common()[0]
    biases = [step for step in steps if isinstance(step, Initialise) and step.scheme == "zeros"]
    offsets = sum(is_offset(graph.params[step.param]) for step in biases)
    zeroed = f", and {offsets} bias{'es' * (offsets > 1)} with 0" if offsets else ""
    if len(schemes) == 1:
        return Phrase(f"initialise {_count(number, 'weight')} with {name}{zeroed}", f"{name} init")
    split = " and ".join(f"{number} with {name}" for name, number in schemes.items())
    return Phrase(f"initialise {_count(len(weights), 'weight')}: {split}{zeroed}", f"{name} init")


def _scheme(step: Initialise) -> str:
    if step.scheme == "normal":
        return f"normal_ of std {step.gain:.3g}/sqrt(fan_in)"
    if step.scheme == "xavier_normal":
        return f"xavier_normal_{f' (gain {step.gain:.3g})' if step.gain != 1 else ''}"
    return SCHEMES.get(step.scheme, step.scheme)


def _rescaled(recipe: Recipe, graph: Graph, steps: Sequence[Step]) -> Phrase:
    count = _count(sum(1 for step in steps if isinstance(step, Rescale)), "weight")
    return Phrase(f"initialise {count} with orthogonal_ and rescale each to unit output variance (lsuv)", "lsuv init")


def _normalised(recipe: Recipe, graph: Graph, steps: Sequence[Step]) -> Phrase:
    norms = [step for step in steps if isinstance(step, Normalise)]
    names = " and ".join(dict.fromkeys(_norm(graph, step) for step in norms))
    ops = [graph.ops[step.op] for step in norms]
    where = f"{names} after {_count(len(ops), 'layer')}"
    return Phrase(f"add {where}", where, ops)


def _norm(graph: Graph, step: Normalise) -> str:
    if step.function == "group_norm":
        return f"nn.GroupNorm({step.groups})"
    if step.function != "batch_norm":
        return MODULES[step.function]
    rank = len(graph.values[graph.ops[step.op].outputs[0]].shape)
    return f"nn.BatchNorm{max(1, rank - 2)}d"


def _skipped(recipe: Recipe, graph: Graph, steps: Sequence[Step]) -> Phrase:
    ops = [graph.ops[step.start] for step in steps if isinstance(step, Skip)]
    blocks, projected = _count(len(ops), "block"), sum(isinstance(step, Skip) and step.stride > 0 for step in steps)
    kind = "an identity skip" if not projected else f"a skip ({projected} projected)"
    return Phrase(f"add {kind} around {blocks}", f"a skip around {blocks}", ops)


def _prenormed(recipe: Recipe, graph: Graph, steps: Sequence[Step]) -> Phrase:
    """Each block has an addition that passes a norm by, or a branch that gets one."""
    number = sum(isinstance(step, (Bypass, Prenormalise)) for step in steps)
    norms = [graph.ops[step.norm] for step in steps if isinstance(step, Bypass)]
    text = f"norm before the branch in {_count(number, 'block')}, x + f(norm(x)), and a final norm"
    return Phrase(text, f"pre-norm in {_count(number, 'block')}", norms)


def _guarded(recipe: Recipe, graph: Graph, steps: Sequence[Step]) -> Phrase:
    guards = [step for step in steps if isinstance(step, Guard)]
    ops = [graph.ops[step.op] for step in guards]
    names = " and ".join(dict.fromkeys(op.function for op in ops))
    text = BOUNDS.get(ops[0].function, "keep the argument of {0} at {1:g} or more").format(names, guards[0].bound)
    return Phrase(text, f"guard {names}", ops)


def _fused(recipe: Recipe, graph: Graph, steps: Sequence[Step]) -> Phrase:
    fuses = [step for step in steps if isinstance(step, Fuse)]
    names = [FUSED[function] for function in dict.fromkeys(step.function for step in fuses)]
    text = " and ".join(f"{old} as {new}" for old, new in names)
    return Phrase(f"compute {text}", f"use {names[0][1]}", [graph.ops[step.end] for step in fuses])


def _softened(recipe: Recipe, graph: Graph, steps: Sequence[Step]) -> Phrase:
    ends = [graph.ops[step.end] for step in steps if isinstance(step, Soften)]
    text = "mix the rows by the softmax of their scores instead of looking one up by argmax"
    return Phrase(text, "softmax for argmax", ends)


def _scored(recipe: Recipe, graph: Graph, steps: Sequence[Step]) -> Phrase:
    text = next(LOSSES[step.loss] for step in steps if isinstance(step, Score))
    return Phrase(text, text)


def _at(ops: Sequence[Op]) -> str:
    """Where: ' (net.1 … net.39)'; lines for calls outside a submodule; nothing when that is unknown."""
    where = list(dict.fromkeys(_place(op) for op in ops))
    if not where or not all(where):
        return ""
    return f" ({where[0]}{f' … {where[-1]}' if len(where) > 1 else ''})"


def _place(op: Op) -> str:
    if op.module_path:
        return op.module_path
    return f"line {op.span.line}" if op.span else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _join(phrases: Sequence[str]) -> str:
    return " and ".join(phrases) if len(phrases) < 3 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


# By the kind of the first of the steps of a part that is in the table.
WRITERS: Mapping[type, Callable[[Recipe, Graph, Sequence[Step]], Phrase]] = {
    Rescale: _rescaled,
    Swap: _swapped,
    Normalise: _normalised,
    Skip: _skipped,
    Bypass: _prenormed,
    Guard: _guarded,
    Fuse: _fused,
    Soften: _softened,
    Score: _scored,
    Initialise: _initialised,
}
