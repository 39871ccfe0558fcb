"""What the weights are called: by the modules that use them where the exporter left only a number."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from gradlint.onnx.program import Program, Step, Symbol

ANONYMOUS = re.compile(r"onnx::\w+|val_\d+|_val_\d+|\d+|[\w:]*Constant[\w:]*|const\w*|.*_folded_?\w*")
# short function name → what its arguments are called where they are weights
ROLES: Mapping[str, Mapping[int, str]] = {
    "linear": {1: "weight", 2: "bias"},
    "matmul": {0: "weight", 1: "weight"},
    "embedding": {1: "weight"},
    "batch_norm": {1: "running_mean", 2: "running_var", 3: "weight", 4: "bias"},
    "layer_norm": {2: "weight", 3: "bias"},
    "rms_norm": {2: "weight"},
    "group_norm": {2: "weight", 3: "bias"},
    "instance_norm": {3: "weight", 4: "bias"},
    "prelu": {1: "weight"},
    **{f"conv{d}d": {1: "weight", 2: "bias"} for d in (1, 2, 3)},
    **{f"conv_transpose{d}d": {1: "weight", 2: "bias"} for d in (1, 2, 3)},
}
FREE = ("weight", "bias")


def named(program: Program) -> Program:
    """The program with anonymous weights called after the modules that use them; nameless constants are buffers."""
    uses = _uses(program)
    taken: Counter[str] = Counter()
    for symbol in _leaves(program):
        if symbol.kind == "param" and ANONYMOUS.fullmatch(symbol.name):
            role, step = uses.get(id(symbol), ("", None))
            if step is None:
                symbol.kind, symbol.data = "buffer", symbol.array
            else:
                symbol.name = f"{step.place.path or step.place.node}.{role}"
        taken[symbol.name] += 1
        if taken[symbol.name] > 1:
            symbol.name = f"{symbol.name}_{taken[symbol.name] - 1}"
    return replace(program, steps=tuple(_at_home(step, program.types) for step in program.steps))


def _leaves(program: Program) -> list[Symbol]:
    """Every stored tensor that is read, each once, those with names of their own first."""
    read = (symbol for step in program.steps for symbol in step.reads)
    found = {id(s): s for s in (*read, *program.outputs) if s.kind in ("param", "buffer")}
    return sorted(found.values(), key=lambda symbol: bool(ANONYMOUS.fullmatch(symbol.name)))


def _at_home(step: Step, types: Mapping[str, str]) -> Step:
    """A layer's call at the module that its weight belongs to: fused with another, it may carry that one's place."""
    places = ROLES.get(step.function.rpartition(".")[2], {})
    found = (step.args[place] for place, role in places.items() if role == "weight" and place < len(step.args))
    home = next(
        (symbol.name.rpartition(".")[0] for symbol in found if isinstance(symbol, Symbol) and symbol.kind == "param"),
        "",
    )
    if not home or home == step.place.path or home.startswith("onnx::"):
        return step
    kind = types.get(home, "").rpartition(".")[2]
    return replace(step, place=replace(step.place, path=home, type=kind))


def _uses(program: Program) -> dict[int, tuple[str, Step]]:
    """For each weight the first use of it as a layer's weight or bias."""
    found: dict[int, tuple[str, Step]] = {}
    for step in program.steps:
        for place, role in ROLES.get(step.function.rpartition(".")[2], {}).items():
            symbol = step.args[place] if place < len(step.args) else None
            if isinstance(symbol, Symbol) and symbol.kind == "param":
                found.setdefault(id(symbol), (role, step))
    return found
