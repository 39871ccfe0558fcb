"""The loss that a file trains its model with, as the one that takes logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import libcst as cst

from gradlint.finding import Change
from gradlint.fix.edits.syntax import Syntax
from gradlint.fix.edits.text import Edit, NoEditError

# Of the loss that is put in: what the file calls, and what it calls then.
NAMES: Mapping[str, Mapping[str, str]] = {
    "ce": {"NLLLoss": "CrossEntropyLoss", "nll_loss": "cross_entropy"},
    "bce_logits": {"BCELoss": "BCEWithLogitsLoss", "binary_cross_entropy": "binary_cross_entropy_with_logits"},
}


def scored(syntax: Syntax, changes: Sequence[Change]) -> list[Edit]:
    """The edits that call the other loss. Raises NoEditError where the file does not call the one it replaces once."""
    edits: list[Edit] = []
    for change in changes:
        known = NAMES[change.new]
        found = [(call, name) for call in syntax.all(cst.Call) if (name := _called(syntax, call, known))]
        if len(found) != 1:
            raise NoEditError(f"the file applies {' or '.join(known)} at {len(found)} places")
        edits += _renamed(syntax, *found[0], known)
    return edits


def _called(syntax: Syntax, call: cst.Call, known: Mapping[str, str]) -> str:
    """Which of the losses the call is about; empty for any other call."""
    parts = (name.rpartition(".") for name in syntax.names(call.func))
    return next((name for owner, _, name in parts if name in known and owner.startswith("torch.nn")), "")


def _renamed(syntax: Syntax, call: cst.Call, name: str, known: Mapping[str, str]) -> list[Edit]:
    if isinstance(call.func, cst.Attribute):
        return [syntax.replace(call.func.attr, known[name])]
    owner = syntax.alias("torch.nn.functional" if name[0].islower() else "torch.nn")
    if owner is not None:
        return [syntax.replace(call.func, f"{owner}.{known[name]}")]
    origin = "torch.nn.functional" if name[0].islower() else "torch.nn"
    return [syntax.replace(call.func, known[name]), syntax.imported(f"from {origin} import {known[name]}")]
