"""Modules and tensors that a model holds without having registered them, put where torch looks for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from gradlint.error import GradlintError
from gradlint.finding import Change, Finding, Fix
from gradlint.fix.trial import STATES
from gradlint.graph.ir import Graph
from gradlint.probe import measure
from gradlint.probe.health import judge
from gradlint.probe.isolation import copy_model

if TYPE_CHECKING:
    from gradlint.config import Settings
    from gradlint.load.model import LoadedModel

RULES = frozenset({"unregistered-module", "unregistered-parameter"})
PRICE = "a checkpoint no longer loads: it has none of their weights"


@dataclass(frozen=True)
class Registered:
    """The fix, and the model and graph with it, to be trained."""

    fix: Fix
    loaded: LoadedModel
    graph: Graph


@dataclass(frozen=True)
class Place:
    """An attribute of a module of this class, and what it is wrapped in: "ModuleList", "ModuleDict", "Parameter"."""

    owner: str
    attribute: str
    wrapper: str


def registered(
    loaded: LoadedModel, graph: Graph, finding: Finding, settings: Settings, state: str
) -> Registered | None:
    """The model with lists, dicts and tensors of its modules registered, and run again; None where nothing changes.

    `state` is the model's health as it is, which registering must not make worse.
    """
    if finding.rule not in RULES:
        return None
    model = copy_model(loaded.model, torch.device("cpu"), None)
    places = list(dict.fromkeys(_register(model)))
    changed = replace(loaded, model=model, rebuild=None)
    try:
        after, measured = measure(changed, settings=settings, seed=settings.seed, loss=None)
    except GradlintError:
        return None
    health = judge(after, measured)
    first, last = _count(loaded.model), _count(model)
    if last <= first or STATES.index(health.state) > STATES.index(state) or _lost(after) >= _lost(graph):
        return None
    names = ", ".join(f"{place.attribute} in nn.{place.wrapper}" for place in places)
    return Registered(
        Fix(
            title=f"hold {names}",
            measured_before={"registered parameters": first, "health": state},
            measured_after={"registered parameters": last, "health": health.state},
            price=PRICE,
            changes=tuple(
                Change("register", each.wrapper, old=each.attribute, types=("", each.owner)) for each in places
            ),
        ),
        changed,
        after,
    )


def _register(model: nn.Module) -> Iterator[Place]:
    """Put what is held in plain attributes where torch finds it, deepest owners last."""
    waiting = [model]
    while waiting:
        owner = waiting.pop()
        for name, value in list(vars(owner).items()):
            wrapped = None if name.startswith("_") else _wrapped(value)
            if wrapped is not None:
                delattr(owner, name)
                setattr(owner, name, wrapped)
                yield Place(type(owner).__name__, name, type(wrapped).__name__)
        waiting += list(owner.children())


def _wrapped(value: object) -> nn.Module | nn.Parameter | None:
    """What torch registers in place of the value; None for what it need not or cannot."""
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, nn.Module) for item in value):
        return nn.ModuleList(value)
    if isinstance(value, dict) and value and all(isinstance(item, nn.Module) for item in value.values()):
        named = all(isinstance(key, str) and key and "." not in key for key in value)
        return nn.ModuleDict(value) if named else None
    leaf = isinstance(value, torch.Tensor) and value.requires_grad and value.is_leaf
    return nn.Parameter(value.detach()) if leaf and isinstance(value, torch.Tensor) else None


def _count(model: nn.Module) -> int:
    return sum(param.numel() for param in model.parameters())


def _lost(graph: Graph) -> int:
    """How many modules with parameters, and trainable tensors, ran without being registered."""
    modules = sum(not module.registered and bool(module.called and module.params) for module in graph.modules)
    leaves = [value for value in graph.values if value.requires_grad and value.producer is None]
    return modules + sum(value.origin in ("constant", "buffer") for value in leaves)
