"""The loss that a file applies to each of its models, found without running anything."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gradlint.source.calls import Makers, assignments
from gradlint.source.names import dotted, is_function, root

# Last part of a torch path → the probe's name for it. Distances between real vectors all count as mean squared error.
LOSSES: Mapping[str, str] = {
    "CrossEntropyLoss": "ce",
    "cross_entropy": "ce",
    "NLLLoss": "nll",
    "nll_loss": "nll",
    "BCELoss": "bce",
    "binary_cross_entropy": "bce",
    "BCEWithLogitsLoss": "bce_logits",
    "binary_cross_entropy_with_logits": "bce_logits",
    "MultiLabelSoftMarginLoss": "bce_logits",
    "multilabel_soft_margin_loss": "bce_logits",
    "MSELoss": "mse",
    "mse_loss": "mse",
    "L1Loss": "mse",
    "l1_loss": "mse",
    "SmoothL1Loss": "mse",
    "smooth_l1_loss": "mse",
    "HuberLoss": "mse",
    "huber_loss": "mse",
}

# Methods of a module class that train it rather than run it.
STEPS = {
    "training_step",
    "validation_step",
    "test_step",
    "shared_step",
    "_shared_step",
    "step",
    "loss",
    "compute_loss",
    "loss_function",
}


@dataclass(frozen=True)
class AppliedLoss:
    """A loss of the file and the names called to make its first argument, outermost first; none when unknown."""

    loss: str
    models: tuple[str, ...]


def loss_of(names: frozenset[str], applied: Sequence[AppliedLoss], *, alone: bool) -> str | None:
    """The loss of the model that `names` hold, or None when the file does not say or says several.

    `alone` tells that the file has no other model, so its only loss is this model's.
    """
    direct = {a.loss for a in applied if a.models and a.models[0] in names}
    if direct:
        return direct.pop() if len(direct) == 1 else None
    every = {a.loss for a in applied}
    return every.pop() if alone and len(every) == 1 else None


def applied_losses(known: Makers) -> list[AppliedLoss]:
    """Every application of a known loss outside the models' own forward; else the losses that are only made."""
    bodies = list(_bodies(known))
    made = {name: loss for body in bodies for name, loss in _loss_objects(body, known.aliases)}
    found = [a for body in bodies for a in _applications(body, known.aliases, made)]
    return found or [AppliedLoss(loss, ()) for loss in dict.fromkeys(made.values())]


def _bodies(known: Makers) -> Iterator[list[ast.stmt]]:
    """The statements that are not a model's forward: the module, its functions, the training methods of its classes."""
    tree = known.source.tree
    yield [s for s in tree.body if not is_function(s) and not isinstance(s, ast.ClassDef)]
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            module = node.name in known.classes
            for item in node.body:
                if is_function(item) and (not module or item.name in STEPS or item.name == "__init__"):
                    yield item.body
    yield from (f.body for f in known.functions.values())


def _loss_objects(body: list[ast.stmt], aliases: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(variable or `self.` attribute, loss) for every loss object that is kept."""
    for name, value in assignments(body):
        if isinstance(value, ast.Call) and (loss := _loss(value.func, aliases)):
            yield name, loss
    for statement in body:
        for node in ast.walk(statement):
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.value, ast.Call)
                and (loss := _loss(node.value.func, aliases))
            ):
                yield from ((ast.unparse(t), loss) for t in node.targets if isinstance(t, ast.Attribute))


def _loss(function: ast.expr, aliases: Mapping[str, str]) -> str | None:
    path = dotted(function, aliases)
    return LOSSES.get(path.rsplit(".", 1)[-1]) if path.startswith("torch") else None


def _applications(body: list[ast.stmt], aliases: Mapping[str, str], made: Mapping[str, str]) -> Iterator[AppliedLoss]:
    values: dict[str, ast.expr] = {}
    for name, value in _results(body):
        values.setdefault(name, value)
    for statement in body:
        for call in ast.walk(statement):
            if isinstance(call, ast.Call) and (loss := _applied(call, aliases, made)) and call.args:
                yield AppliedLoss(loss, tuple(_called(call.args[0], values)))


def _applied(call: ast.Call, aliases: Mapping[str, str], made: Mapping[str, str]) -> str | None:
    """The loss that a call computes: `F.cross_entropy(…)`, `criterion(…)` or `nn.MSELoss()(…)`."""
    name = dotted(call.func, aliases).rsplit(".", 1)[-1]
    if name in LOSSES and name[0].islower():
        return _loss(call.func, aliases)
    if isinstance(call.func, ast.Call):
        return _loss(call.func.func, aliases)
    return made.get(ast.unparse(call.func)) if isinstance(call.func, ast.Name | ast.Attribute) else None


def _results(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    """(variable, the call it comes from), unpacked results included: `mu, logvar = net(x)`."""
    yield from assignments(body)
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Assign) and not isinstance(node.value, ast.Tuple | ast.List):
                for target in node.targets:
                    if isinstance(target, ast.Tuple | ast.List):
                        yield from ((e.id, node.value) for e in target.elts if isinstance(e, ast.Name))


def _called(value: ast.expr, values: Mapping[str, ast.expr], depth: int = 4) -> Iterator[str]:
    """The names whose calls a value comes through, outermost first: `criterion(D(G(z)), y)` → D, G."""
    if isinstance(value, ast.Name):
        if depth and value.id in values:
            yield from _called(values[value.id], values, depth - 1)
        return
    if isinstance(value, ast.Call):
        if isinstance(value.func, ast.Name):
            yield value.func.id
        elif root(value.func) == "self" or isinstance(value.func, ast.Call):
            yield root(value.func)
        else:  # a method of a tensor: criterion(net(x).squeeze(1), y)
            yield from _called(value.func, values, depth)
        for argument in value.args:
            yield from _called(argument, values, depth)
        return
    for child in ast.iter_child_nodes(value):
        if isinstance(child, ast.expr):
            yield from _called(child, values, depth)
