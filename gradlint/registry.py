"""How rules are found, selected and explained: entry points → rules → pages. Imports rules, never torch."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Sequence
from functools import cache
from types import ModuleType

from gradlint.error import GradlintError, UsageError
from gradlint.finding import FAMILIES
from gradlint.rule import Rule

GROUP = "gradlint.rules"
BUILTIN = "gradlint_rules"  # so that an uninstalled checkout finds the first-party pack
ALL = "all"


@cache
def rules() -> tuple[Rule, ...]:
    """Every rule of every installed pack, by code. Raises GradlintError when two rules share a code or a name."""
    return check_unique(rule for pack in packs() for rule in rules_of(pack))


def packs() -> tuple[str, ...]:
    """The packages that hold rules: the first-party one where it can be imported, then those of the entry points."""
    from importlib import metadata  # a third of what it takes to start, and most runs without a model need no rule

    declared = [entry.value.partition(":")[0] for entry in metadata.entry_points(group=GROUP)]
    builtin = [BUILTIN] if importlib.util.find_spec(BUILTIN) else []
    return tuple(dict.fromkeys(builtin + sorted(declared)))


def folders() -> tuple[str, ...]:
    """Where the packs lie, without importing them."""
    specs = [importlib.util.find_spec(pack) for pack in packs()]
    return tuple(folder for spec in specs if spec for folder in spec.submodule_search_locations or ())


def rules_of(pack: str) -> list[Rule]:
    """The rules that the modules of one package declare. Raises GradlintError when one of them cannot be imported."""
    import pkgutil

    root = _import(pack)
    names = [found.name for found in pkgutil.walk_packages(getattr(root, "__path__", ()), f"{pack}.", onerror=_refuse)]
    modules = [root, *(_import(name) for name in names)]
    return [rule for module in modules for rule in _declared(module)]


def check_unique(found: Iterable[Rule]) -> tuple[Rule, ...]:
    """The rules sorted by code. Raises GradlintError when two of them share a code or a name."""
    ordered = sorted(found, key=lambda rule: (rule.code, rule.module))
    seen: dict[str, Rule] = {}
    for rule in ordered:
        for key in (rule.code, rule.name):
            if key in seen:
                raise GradlintError(f"two rules are called {key}: one in {seen[key].module}, one in {rule.module}")
            seen[key] = rule
    return tuple(ordered)


def find(name: str, among: Sequence[Rule] | None = None) -> Rule:
    """The rule of this name or code. Raises UsageError with the nearest match when there is none."""
    known = rules() if among is None else among
    for rule in known:
        if name in (rule.name, rule.code):
            return rule
    raise _unknown(name, [word for rule in known for word in (rule.name, rule.code)])


def select(
    selected: Sequence[str] = (), ignored: Sequence[str] = (), among: Sequence[Rule] | None = None
) -> tuple[Rule, ...]:
    """The rules to run: those selected (none means all) less those ignored.

    A selector is a rule's name, its code or a prefix of it ("GL1"), a family, or "all". Preview rules run only when
    their own name or code is selected. Raises UsageError with the nearest match for a selector that fits no rule.
    """
    known = rules() if among is None else tuple(among)
    wanted = [rule for selector in selected or (ALL,) for rule in _matches(selector, known)]
    unwanted = {rule.name for selector in ignored for rule in _matches(selector, known)}
    allowed = {rule.name for rule in wanted if rule.status == "stable" or {rule.name, rule.code} & set(selected)}
    return tuple(rule for rule in known if rule.name in allowed - unwanted)


def page(rule: Rule) -> str:
    """The rule's document, the `.md` file beside its module. Raises GradlintError when there is none."""
    from importlib import resources

    package, _, stem = rule.module.rpartition(".")
    try:
        return resources.files(package).joinpath(f"{stem}.md").read_text(encoding="utf-8")
    except (FileNotFoundError, ModuleNotFoundError) as error:
        raise GradlintError(f"rule {rule.name} has no page {stem}.md beside {rule.module}") from error


def summary(rule: Rule) -> str:
    """The first sentence of the rule's page after its "What it does" heading, for a one-line listing."""
    _, _, body = page(rule).partition("## What it does")
    paragraph = body.strip().partition("\n\n")[0].replace("\n", " ")
    return paragraph.partition(". ")[0].rstrip(".")


def _matches(selector: str, known: Sequence[Rule]) -> list[Rule]:
    if selector == ALL:
        return list(known)
    found = [r for r in known if selector in (r.name, r.family) or r.code.startswith(selector.upper())]
    if not found and selector not in FAMILIES:
        raise _unknown(selector, [word for rule in known for word in (rule.name, rule.code, rule.family)])
    return found


def _unknown(name: str, words: Sequence[str]) -> UsageError:
    import difflib

    near = difflib.get_close_matches(name, dict.fromkeys(words), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "`gradlint rule --all` lists every rule"
    return UsageError(f"no rule, code or family is called {name!r}", hint)


def _declared(module: ModuleType) -> list[Rule]:
    found = (getattr(value, "__gradlint_rule__", None) for value in vars(module).values())
    return [rule for rule in found if isinstance(rule, Rule) and rule.module == module.__name__]


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise GradlintError(f"the rule pack module {name} cannot be imported: {error}") from error


def _refuse(name: str) -> None:
    raise GradlintError(f"the rule pack module {name} cannot be imported")
