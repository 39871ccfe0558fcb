"""Find the models of a file without importing it: instances, classes and factories that are no part of another."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from gradlint.graph.ir import Span
from gradlint.source.calls import LOSS, Makers, assignments, makers, variables
from gradlint.source.classes import definitions, resolve
from gradlint.source.constants import normal
from gradlint.source.examples import SourceHints, hints_of
from gradlint.source.losses import AppliedLoss, applied_losses, loss_of
from gradlint.source.names import (
    Definition,
    binds,
    free,
    imports,
    is_definition,
    is_function,
    is_main_guard,
    loads,
    parameters,
    root,
    stars,
    walk_scope,
)
from gradlint.source.recipe import Cook, Recipe, Scope, scopes
from gradlint.source.slice import Slicer
from gradlint.source.text import Source
from gradlint.source.usage import CONFIG, constructor

Kind = Literal["instance", "class", "factory", "expression"]

# Modules that serve training and are no network: left out when the file has a network.
UTILITY = re.compile(
    r"\w*(Loss|Criterion|Metric|Scheduler|Sampler|Augment(ation)?|Dataset|Transform|EarlyStopping)\w*|Identity|Flatten"
)

# Parts of networks: where a file has anything larger, a part that nothing uses is a leftover.
BLOCK = re.compile(
    r"\w*(Block|Layer|Unit|Cell|Bottleneck|ConvBN\w*|Attention|FeedForward|PositionalEncoding|Norm\d?d?|Head)s?\w{0,2}"
)


@dataclass(frozen=True)
class Candidate:
    """One model of a file and the ways to make it, best first; the last one of a class or factory only names it."""

    kind: Kind
    name: str  # the variable, class or function, or the user's expression
    made_by: str  # the class, factory or library path that makes it
    span: Span
    recipes: tuple[Recipe, ...] = ()
    makes: tuple[Recipe, ...] = ()  # the classes that a factory makes, for one that cannot be called
    variables: frozenset[str] = frozenset()  # names that hold it somewhere in the file
    loss: str | None = None
    hints: SourceHints = field(default_factory=SourceHints)


@dataclass(frozen=True)
class _Local:
    """A model made outside any model: in the module, its main guard or a function that makes no model."""

    scope: Scope
    name: str  # "" when the call is not assigned
    value: ast.expr
    made_by: str


def find_models(source: Source, *, all_classes: bool = False) -> list[Candidate]:
    """The models of a file in line order. With `all_classes`, its building blocks too."""
    if not _mentions_torch(source):
        return []
    finder = _Finder(makers(source))
    found = finder.everything() if all_classes else finder.roots()
    alone = len(found) == 1
    return [finder.described(c, alone=alone) for c in sorted(found, key=lambda c: c.span.line)]


def find_expression(source: Source, expression: str) -> Candidate:
    """The user's expression as a candidate; a variable of a function or of the main guard is found there."""
    finder = _Finder(makers(source))
    parsed = ast.parse(expression, mode="eval").body
    others = {c.made_by for c in finder.roots()}
    if isinstance(parsed, ast.Name) and (known := finder.named(parsed.id)):
        return finder.described(known, alone=others <= {known.made_by})
    made_by = finder.known.maker(parsed, finder.instances)
    node = finder.known.classes.get(made_by) or finder.known.factories.get(made_by)
    span = source.span(node.node) if node else Span(source.shown, 1)
    recipe = finder.cook.recipe(parsed, finder.scopes[0])
    named = Recipe(recipe.module, parsed, (), expression)
    names = finder.variables_of(made_by)
    found = Candidate("expression", expression, made_by, span, (named,), variables=names)
    return finder.described(found, alone=others <= {made_by})


def _mentions_torch(source: Source) -> bool:
    """Whether the file may have a model: it names torch, or imports a file beside it that may."""
    if re.search(r"\b(torch\w*|pytorch\w*|lightning|transformers|timm|nn)\b", source.text):
        return True
    paths = [*imports(source.tree).values(), *(f"{module}.x" for module in stars(source.tree))]
    return any(resolve(path, source) for path in paths)


class _Finder:
    """The models of one file and which of them make up another."""

    def __init__(self, known: Makers) -> None:
        self.known = known
        self.source = known.source
        classes = frozenset(d.name for d in definitions(self.source.tree.body) if isinstance(d, ast.ClassDef))
        self.cook = Cook(known, Slicer(known.aliases, known.functions, classes))
        self.scopes = scopes(known)
        self.top = [s for s in self.source.tree.body if not is_main_guard(s)]
        self.instances = variables(self.top, known)

    def roots(self) -> list[Candidate]:
        """Models that no other model of the file uses."""
        instances = self._without_layers(self._free_instances())
        used = self._uses([*self.known.classes, *self.known.factories])
        covered = self._reached({self.instances[n] for n in instances} | instances)
        named = [n for n in [*self.known.classes, *self.known.factories] if n not in used | covered]
        named = [n for n in named if self._forwards(n)] or ([] if instances else self._last_of_cycle())
        made = [self._instance(n) for n in instances]
        made += [self._composed(local) for local in self._compositions()]
        inside = self._reached({n for c in made if c.kind == "expression" for r in c.recipes for n in _names(r)})
        made += [self._named(n) for n in self._one_per_class(named) if n not in inside]
        return self._without_utilities(made)

    def everything(self) -> list[Candidate]:
        """Every instance and every class with a forward."""
        names = [n for n in self.known.classes if self.known.classes[n].forward]
        return [self._instance(n) for n in self.instances] + [self._named(n) for n in names]

    def named(self, name: str) -> Candidate | None:
        """The candidate of a variable, class or factory of the file, or None."""
        if name in self.instances:
            return self._instance(name)
        if name in self.known.classes or name in self.known.factories:
            return self._named(name)
        local = next((x for x in self._locals if x.name == name), None)
        return self._composed(local) if local else None

    def described(self, candidate: Candidate, *, alone: bool) -> Candidate:
        """The candidate with the loss and the input shapes that the file gives for it."""
        names = candidate.variables | {candidate.name}
        loss = loss_of(names, self._losses, alone=alone)
        return replace(candidate, loss=loss, hints=hints_of(self.known, self.scopes, names, candidate.made_by))

    def variables_of(self, made_by: str) -> frozenset[str]:
        """Every variable of the file that holds what a class or factory makes."""
        return frozenset(x.name for x in self._locals if x.name and x.made_by == made_by)

    @cached_property
    def _losses(self) -> list[AppliedLoss]:
        return applied_losses(self.known)

    # -- who uses whom

    @cached_property
    def _references(self) -> Mapping[str, set[str]]:
        """Name → the names that its definition reads, for everything that the module binds."""
        found: dict[str, set[str]] = {}
        for statement in self.top:
            names = {statement.name} if is_definition(statement) else binds(statement)
            for name in names:
                found.setdefault(name, set()).update(free(statement) - {name})
        return found

    def _reached(self, names: set[str]) -> set[str]:
        """The names and everything their definitions use, transitively."""
        seen, pending = set[str](), list(names)
        while pending:
            name = pending.pop()
            if name not in seen:
                seen.add(name)
                pending.extend(self._references.get(name, ()))
        return seen

    def _uses(self, names: list[str]) -> set[str]:
        """Those of `names` that another one uses."""
        return {
            other
            for name in names
            for other in self._reached(self._references.get(name, set()))
            if other in names and other != name
        }

    def _free_instances(self) -> set[str]:
        """Module-level models that are not passed into another one."""
        values = [(n, v) for n, v in assignments(self.top) if n in self.instances]
        inner = {name for owner, v in values for name in loads(v) if name in self.instances and name != owner}
        return set(self._distinct(values)) - inner

    def _distinct(self, values: list[tuple[str, ast.expr]]) -> Iterator[str]:
        """Of variables that hold the same call (`G_AB = Net(); G_BA = Net()`), the first."""
        seen: dict[str, str] = {}
        for name, value in values:
            if self.known.maker(value, self.instances) and seen.setdefault(ast.dump(value), name) == name:
                yield name

    def _without_layers(self, names: set[str]) -> set[str]:
        """Single layers are models only where nothing else is."""
        larger = {n for n in names if not self.known.is_layer(self.instances[n])}
        return names if not larger and not self.known.classes else larger

    def _forwards(self, name: str) -> bool:
        info = self.known.classes.get(name)
        return info.forward if info else not self.known.is_layer(name)

    def _last_of_cycle(self) -> list[str]:
        """Where every class is used by another (mutual recursion), the last one with a forward."""
        return [n for n, info in self.known.classes.items() if info.forward][-1:]

    def _one_per_class(self, names: list[str]) -> list[str]:
        """Of several factories for one class (resnet18, resnet34 …), the one that the file calls, or the first."""
        called = {x.made_by for x in self._locals}
        groups: dict[tuple[str, ...], list[str]] = {}
        for name in names:
            factory = self.known.factories.get(name)
            groups.setdefault(factory.makes if factory else (name,), []).append(name)
        return [next((n for n in group if n in called), group[0]) for group in groups.values()]

    def _without_utilities(self, found: list[Candidate]) -> list[Candidate]:
        for pattern in (LOSS, UTILITY, BLOCK):
            larger = [c for c in found if c.kind in ("instance", "expression") or not pattern.fullmatch(c.made_by)]
            found = larger or found
        return found

    # -- models made outside any model

    @cached_property
    def _locals(self) -> list[_Local]:
        return [local for scope in self.scopes for local in self._locals_of(scope)]

    def _locals_of(self, scope: Scope) -> Iterator[_Local]:
        body = self.top if not scope.name else list(scope.body)
        outer = {} if not scope.name else self.instances
        models = variables(body, self.known, outer)
        assigned: set[int] = set()
        for name, value in assignments(body):
            if isinstance(value, ast.Call) and (made := self.known.maker(value, models)):
                assigned |= {id(n) for n in ast.walk(value)}
                yield _Local(scope, name, value, made)
        for statement in body:
            for node in () if is_definition(statement) else walk_scope(statement):
                if isinstance(node, ast.Call) and id(node) not in assigned and (made := self._own(node)):
                    yield _Local(scope, "", node, made)

    def _own(self, call: ast.Call) -> str:
        name = root(call.func) if isinstance(call.func, ast.Name) else ""
        return name if name in self.known.classes or name in self.known.factories else ""

    def _compositions(self) -> Iterator[_Local]:
        """Models that a function or the main guard makes of library parts: nn.Sequential(…), imported classes."""
        seen: set[str] = set()
        for local in self._locals:
            if not local.scope.name or local.scope.method or not local.name:
                continue
            own = local.made_by in self.known.classes or local.made_by in self.known.factories
            part = any(local.name in loads(x.value) for x in self._locals if x is not local and x.scope is local.scope)
            key = local.made_by if local.made_by in self.known.imported else local.name
            if own or part or self.known.is_layer(local.made_by) or key in seen:
                continue
            seen.add(key)
            yield local

    # -- candidates

    def _instance(self, name: str) -> Candidate:
        module = self.scopes[0]
        values = [v for n, v in assignments(self.top) if n == name and self.known.maker(v, self.instances)]
        targets = frozenset({name})
        recipes = [self.cook.recipe(ast.Name(name, ast.Load()), module, targets)]
        recipes += [self.cook.recipe(v, module) for v in values if isinstance(v, ast.Call)]
        return Candidate(
            "instance", name, self.instances[name], self.source.span(values[0]), tuple(recipes), variables=targets
        )

    def _composed(self, local: _Local) -> Candidate:
        return Candidate(
            "expression",
            local.name,
            local.made_by,
            self.source.span(local.value),
            tuple(self._recipes([local])),
            variables=frozenset({local.name}),
        )

    def _named(self, name: str) -> Candidate:
        info = self.known.classes.get(name) or self.known.factories[name]
        kind: Kind = "class" if name in self.known.classes else "factory"
        calls = [x for x in self._locals if x.made_by == name]
        recipes = [
            *self._recipes(calls),
            self.cook.recipe(ast.Name(name, ast.Load()), self.scopes[0], extra=self._stated(info.node)),
        ]
        made = [n for n in (() if kind == "class" else self.known.factories[name].makes) if n in self.known.classes]
        makes = [
            self.cook.recipe(ast.Name(n, ast.Load()), self.scopes[0], extra=self._stated(self.known.classes[n].node))
            for n in made
        ]
        return Candidate(
            kind, name, name, self.source.span(info.node), tuple(recipes), tuple(makes), self.variables_of(name)
        )

    def _stated(self, node: Definition) -> set[str]:
        """Module-level names that may hold a constructor's arguments: configurations, and names like its parameters."""
        function = node if is_function(node) else constructor(node)
        wanted = {normal(p.arg) for p in parameters(function)} if function else set()
        return {n for n in self._references if CONFIG.fullmatch(n.lower()) or normal(n) in wanted}

    def _recipes(self, calls: list[_Local]) -> Iterator[Recipe]:
        found = [
            self.cook.recipe(ast.Name(local.name, ast.Load()), local.scope, frozenset({local.name}))
            for local in calls
            if local.name
        ]
        found += [self.cook.recipe(local.value, local.scope) for local in calls]
        for recipe in found:
            if not any({"self", "cls"} & set(frame.guesses) for frame in recipe.frames):
                yield recipe


def _names(recipe: Recipe) -> frozenset[str]:
    """Everything that a recipe's frames and expression read."""
    return loads(recipe.expression).union(*(loads(s) for f in recipe.frames for s in f.body))
