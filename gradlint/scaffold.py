"""The two files of a new rule: one that works and passes its own examples, to be changed into what is meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from gradlint.error import UsageError
from gradlint.finding import FAMILIES
from gradlint.rule import CODE, NAME, Rule
from gradlint.version import __version__

CORE = Path("rules") / "gradlint_rules"  # of a checkout of gradlint itself
CORE_PREFIX, PACK_PREFIX = "GL", "MY"
LAST = 99  # GL999 stands apart

MODULE = '''"""{code}: TODO, the bad pattern in a line. For now: a clipping activation that stops gradients."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Claim, Draft
from gradlint.graph.ir import Graph
from gradlint.rule import rule


@rule(
    code="{code}",
    name="{name}",
    family="{family}",
    severity="warning",
    since="{version}",
    options={{"decades": -0.3}},
    status="preview",
)
def {function}(graph: Graph, options: dict[str, float]) -> Iterator[Draft]:
    """Hard tanh whose gradient is at most half as large before it as after it. TODO: what is reported."""
    for op in graph.ops:
        if op.kind == "activation" and op.function == "hardtanh":
            yield Draft(
                message="this hardtanh lets less than half of the gradient pass",
                op=op.index,
                ops=(op.index,),
                # What the probe has to bear out: gradlint.quantity.QUANTITIES lists the names.
                claim=Claim("gradient-change", (op.inputs[0], op.outputs[0]), options["decades"], "below"),
            )
'''

PAGE = """# {code} {name}

## What it does
Reports hard tanhs that let less than half of the gradient pass. TODO: one sentence that says what is reported.

## Why it hurts training
TODO: what goes wrong, in numbers.

## How it is decided
On the graph and the prediction; `decades` (default -0.3) is the change of the gradient from which it is reported. TODO:
the formula and where the threshold comes from.

## What the probe checks
The gradient before the activation over that after it.

## Fixes and their price
- TODO: what to write instead, and what it costs.

## Known limits
TODO: what it does not see, and which healthy models come close.

## References
- TODO

## Examples

### faulty
```py
import torch
from torch import nn

model = nn.Sequential(
    nn.Linear(8, 16),
    nn.Hardtanh(-0.1, 0.1),  # error: [{name}]
    nn.Linear(16, 2),
)
inputs = torch.randn(32, 8)
loss = "ce"
```

### healthy
```py
import torch
from torch import nn

model = nn.Sequential(nn.Linear(8, 16), nn.Hardtanh(-3, 3), nn.Linear(16, 2))
inputs = torch.randn(32, 8)
loss = "ce"
```
"""


def scaffold(name: str, family: str, code: str | None, folder: Path | None, known: Iterable[Rule]) -> list[Path]:
    """Write the module and the page of a new rule, and what makes their folder a package; the files that were written.

    In a checkout of gradlint they go to its own pack, elsewhere to `folder`. Without a code the next free one of the
    family is taken. Raises UsageError for a name, code or family that no rule can have, and for one that is taken.
    """
    taken = list(known)
    core = folder is None and CORE.is_dir()
    if folder is None and not core:
        raise UsageError("where should the rule go?", f"gradlint rule --new {name} --to my_rules")
    place = CORE / family if folder is None else folder
    code = code or next_code(family, taken, CORE_PREFIX if core else PACK_PREFIX)
    _check(name, family, code, taken)
    stem = name.replace("-", "_")
    values = {"code": code, "name": name, "family": family, "function": stem, "version": __version__}
    files = {place / f"{stem}.py": MODULE, place / f"{stem}.md": PAGE}
    existing = [path for path in files if path.exists()]
    if existing:
        raise UsageError(f"{existing[0]} exists already", "choose another name")
    place.mkdir(parents=True, exist_ok=True)
    if not (place / "__init__.py").exists():
        files[place / "__init__.py"] = '"""Rules for gradlint."""\n'
    for path, text in files.items():
        path.write_text(text.format(**values), encoding="utf-8")
    return list(files)


def next_code(family: str, known: Iterable[Rule], prefix: str) -> str:
    """The first code of the family after all that are taken: the family's place and a number of two digits."""
    series = f"{prefix}{FAMILIES_BY_DIGIT.get(family, 0)}"
    numbers = [int(rule.code[-2:]) for rule in known if rule.code.startswith(series)]
    return f"{series}{max((n for n in numbers if n < LAST), default=0) + 1:02}"


def steps(files: Iterable[Path], name: str) -> Iterator[str]:
    """What to do next, as lines."""
    page = next(path for path in files if path.suffix == ".md")
    yield f"next: pytest {page}"
    if not page.is_relative_to(CORE):
        yield "a conftest.py beside it collects the page: from gradlint.testing import pytest_collect_file"
        yield f'and pyproject.toml names the pack: [project.entry-points."gradlint.rules"] mine = "{page.parent.name}"'
    yield f"then: gradlint --select {name} model.py (a preview rule runs when it is selected by name)"


FAMILIES_BY_DIGIT = {
    "vanishing": 1,
    "exploding": 2,
    "init": 3,
    "normalization": 4,
    "architecture": 5,
    "units": 6,
    "output": 7,
    "numerics": 8,
    "wiring": 9,
}


def _check(name: str, family: str, code: str, taken: Iterable[Rule]) -> None:
    if not re.fullmatch(NAME, name):
        raise UsageError(f"{name!r} is no rule name", "kebab-case, and the bad pattern: late-dropout")
    if family not in FAMILIES:
        raise UsageError(f"{family!r} is no family", f"one of {', '.join(FAMILIES)}")
    if not re.fullmatch(CODE, code):
        raise UsageError(f"{code!r} is no rule code", "letters and three digits: MY101")
    for rule in taken:
        if rule.name == name or rule.code == code:
            raise UsageError(f"{rule.code} {rule.name} exists already, in {rule.module}", "choose another name or code")
