"""What a rule author imports: the metadata of a rule and the decorator that attaches it to its function."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from gradlint.finding import FAMILIES, Draft, Severity

FACTS = ("graph", "signal", "probe", "loss", "options", "idle")
Check = Callable[..., Iterable[Draft]]
C = TypeVar("C", bound=Check)

CODE = r"[A-Z]{2,8}\d{3}"  # GL is the first-party pack's
NAME = r"[a-z][a-z0-9]*(-[a-z0-9]+)*"


@dataclass(frozen=True)
class Rule:
    """The metadata of one rule; `check` yields drafts from the facts that its parameters name.

    Facts: `graph` (Graph), `signal` (Signal), `probe` (Measurement; without one the rule is not applicable),
    `loss` (the loss name), `options` (the rule's own options, defaults filled in), `idle` (the suppression comments
    that suppress nothing, known only when every finding is; such a rule is about a file, and gets nothing but `idle`).
    """

    code: str
    name: str
    family: str
    severity: Severity
    since: str
    check: Check
    options: Mapping[str, float | int | bool | str] = field(default_factory=dict)
    status: Literal["stable", "preview"] = "stable"

    @property
    def facts(self) -> tuple[str, ...]:
        """The names of the facts that the check asks for, in its own order."""
        return tuple(inspect.signature(self.check).parameters)

    @property
    def module(self) -> str:
        """The module that defines the rule; its page is the `.md` file of the same name beside it."""
        return self.check.__module__


def rule(
    *,
    code: str,
    name: str,
    family: str,
    severity: Severity,
    since: str,
    options: Mapping[str, float | int | bool | str] | None = None,
    status: Literal["stable", "preview"] = "stable",
) -> Callable[[C], C]:
    """Declare a function as a rule's check. The function itself is left as it is, so that it can be pickled.

    Raises ValueError when the code, name, family or one of the parameters is not of the form a rule must have.
    """
    if not re.fullmatch(CODE, code):
        raise ValueError(f"rule code {code!r} is not of the form GL123 or MY123")
    if not re.fullmatch(NAME, name):
        raise ValueError(f"rule name {name!r} is not kebab-case")
    if family not in FAMILIES:
        raise ValueError(f"rule family {family!r} is not one of {', '.join(FAMILIES)}")

    def attach(check: C) -> C:
        unknown = set(inspect.signature(check).parameters) - set(FACTS)
        if unknown:
            raise ValueError(f"rule {name} asks for unknown facts: {', '.join(sorted(unknown))}")
        declared = Rule(code, name, family, severity, since, check, dict(options or {}), status)
        check.__dict__["__gradlint_rule__"] = declared
        return check

    return attach
