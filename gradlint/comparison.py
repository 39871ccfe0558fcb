"""Two reports held against each other: which findings are new, fixed or unchanged, and how each model moved."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradlint.report.chart import WEIGHTED
from gradlint.report.fingerprint import normal
from gradlint.report.number import count, number
from gradlint.report.outcome import reaches

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Located:
    """A finding of a JSON report and the target that it belongs to."""

    target: Json
    finding: Json


@dataclass(frozen=True)
class Moved:
    """One number of a model, before and after."""

    label: str
    before: str
    after: str


@dataclass(frozen=True)
class Movement:
    """How one target moved; a target that one side lacks has no numbers but a word for it."""

    target: str
    numbers: tuple[Moved, ...] = ()
    word: str = ""


@dataclass(frozen=True)
class Comparison:
    """What HEAD has and BASE has not, the other way round, and what both have; failures of either side by name."""

    new: tuple[Located, ...]
    fixed: tuple[Located, ...]
    unchanged: tuple[Located, ...]
    movements: tuple[Movement, ...]
    failures: tuple[tuple[str, str, str], ...]  # side, target, message

    @property
    def failed(self) -> bool:
        """Whether something of HEAD could not be analysed; of BASE that is only said."""
        return any(side == "head" for side, _, _ in self.failures)

    def worse(self, threshold: str) -> bool:
        """Whether a new finding reaches the threshold."""
        return any(reaches(each.finding["severity"], threshold) for each in self.new)


def compare(base: Json, head: Json) -> Comparison:
    """Two documents of the schema gradlint/1. Findings are matched by what they say, not by line or number."""
    alone = len(_files(base)) == len(_files(head)) == 1  # one file against another, whatever they are called
    before, after = _findings(base, alone=alone), _findings(head, alone=alone)
    return Comparison(
        new=tuple(after[key] for key in after if key not in before),
        fixed=tuple(before[key] for key in before if key not in after),
        unchanged=tuple(after[key] for key in after if key in before),
        movements=tuple(_movements(base, head, alone=alone)),
        failures=(*_failures("base", base), *_failures("head", head)),
    )


def stands(finding: Json) -> bool:
    """Whether a finding of a JSON report counts."""
    return finding["verdict"] != "refuted" and finding.get("suppression") is None


def _files(document: Json) -> set[str]:
    return {str(target["path"]) for target in document["targets"] if target["status"] != "skipped"}


def _findings(document: Json, *, alone: bool) -> dict[tuple[Any, ...], Located]:
    """The standing findings by identity; the second of one identity is another finding."""
    seen: Counter[tuple[Any, ...]] = Counter()
    found: dict[tuple[Any, ...], Located] = {}
    for target in document["targets"]:
        for finding in filter(stands, target["findings"]):
            file = "" if alone else finding["path"] or target["path"]
            key = (finding["rule"], file, _name(target), normal(finding["module"]), finding["cause"])
            seen[key] += 1
            found[(*key, seen[key])] = Located(target, finding)
    return found


def _name(target: Json) -> str:
    """The target without its file and without the arguments of a call."""
    return str(target["target"]).rpartition(":")[2].partition("(")[0] if ":" in target["target"] else ""


def _movements(base: Json, head: Json, *, alone: bool) -> Iterator[Movement]:
    before, after = _targets(base, alone=alone), _targets(head, alone=alone)
    for key in dict.fromkeys((*before, *after)):
        if key not in before or key not in after:
            present = after.get(key) or before[key]
            yield Movement(present["target"], word="added" if key in after else "removed")
            continue
        first, last = _numbers(before[key]), _numbers(after[key])
        moved = [Moved(label, first[label], last[label]) for label in last if first[label] != last[label]]
        if moved:
            yield Movement(after[key]["target"], tuple(moved))


def _targets(document: Json, *, alone: bool) -> dict[tuple[str, str], Json]:
    analysed = [target for target in document["targets"] if target["status"] == "analysed"]
    return {("" if alone else str(target["path"]), _name(target)): target for target in analysed}


def _numbers(target: Json) -> dict[str, str]:
    """The numbers that describe a model: its size, and how the gradient is spread over its layers."""
    layers = [layer for layer in target["layers"] if layer["kind"] in WEIGHTED] or target["layers"]
    gradients = [layer["gradient_rms"] for layer in layers if layer["gradient_rms"] is not None]
    first, last = (gradients[0], gradients[-1]) if gradients else (None, None)
    return {
        "parameters": f"{target['parameters']:,}",
        "layers with weights": str(len(layers)),
        "operations": str(target["capture"]["ops"]),
        "gradient (RMS) at the first layer": _rounded(first),
        "gradient (RMS) at the last layer": _rounded(last),
        "smallest gradient (RMS)": _rounded(min(gradients, default=None)),
        "largest gradient (RMS)": _rounded(max(gradients, default=None)),
    }


def _rounded(value: float | None) -> str:
    """Two digits: what a probe measures differs in the third from machine to machine."""
    return "unknown" if value is None else number(float(f"{value:.1e}"))


def _failures(side: str, document: Json) -> Iterator[tuple[str, str, str]]:
    for error in document["errors"]:
        yield side, "", str(error["message"])
    for target in document["targets"]:
        if target["error"]:
            yield side, str(target["target"]), str(target["error"]["message"])


# -- how it is written -------------------------------------------------------------------------------------------------

SUFFIXES = {".md": "markdown", ".json": "json", ".txt": "text"}  # of files, and the form that each says


def headline(found: Comparison) -> str:
    """The comparison in a few words."""
    parts = [f"{len(getattr(found, name))} {name}" for name in ("new", "fixed", "unchanged")]
    return ", ".join([*parts, *([f"{count(len(found.failures), 'failure')}"] if found.failures else [])])


def written(found: Comparison, form: str, names: tuple[str, str]) -> Iterator[str]:
    """The lines of one form: "text", "markdown" or "json"."""
    if form == "json":
        return iter([json.dumps(data(found), indent=2)])
    return markdown(found, names) if form == "markdown" else text(found)


def text(found: Comparison) -> Iterator[str]:
    """Lines for a terminal: findings by what became of them, then the models that moved."""
    for mark, word, group in (
        ("+", "new", found.new),
        ("-", "fixed", found.fixed),
        (" ", "unchanged", found.unchanged),
    ):
        for each in group:
            finding = each.finding
            severity = f"{finding['severity']}[{finding['rule']}]"
            yield f"{mark} {word:9} {_place(each)}: {severity} {finding['message']}"
    for side, target, message in found.failures:
        yield f"! {side:9} {target + ': ' if target else ''}{message}"
    for movement in found.movements:
        yield ""
        yield f"{movement.target}{' ' + movement.word if movement.word else ''}"
        yield from (f"  {each.label:34} {each.before} → {each.after}" for each in movement.numbers)
    if any((found.new, found.fixed, found.unchanged, found.failures, found.movements)):
        yield ""
    yield headline(found)


def markdown(found: Comparison, names: Sequence[str]) -> Iterator[str]:
    """Lines of a pull-request comment; the first is a marker by which a bot finds its own comment again."""
    yield "<!-- gradlint diff -->"
    yield f"## gradlint: {headline(found)}"
    yield ""
    yield f"`{names[0]}` → `{names[1]}`"
    for mark, word, group in (("🔴", "new", found.new), ("✅", "fixed", found.fixed)):
        if group:
            yield from ("", f"| {mark} {word} | where | what |", "|---|---|---|")
            yield from (_row(each) for each in group)
    if found.unchanged:
        yield from ("", "<details>", f"<summary>{len(found.unchanged)} unchanged</summary>", "")
        yield from (
            "| rule | where | what |",
            "|---|---|---|",
            *(_row(each) for each in found.unchanged),
            "",
            "</details>",
        )
    for side, target, message in found.failures:
        yield from ("", f"❌ {side}: `{target or 'gradlint'}` could not be analysed: {_cell(message)}")
    for movement in found.movements:
        yield from ("", f"**`{movement.target}`** {movement.word}".rstrip())
        if movement.numbers:
            yield from ("", "| | before | after |", "|---|---|---|")
            yield from (f"| {each.label} | {each.before} | {each.after} |" for each in movement.numbers)


def data(found: Comparison) -> dict[str, Any]:
    """The comparison as JSON-able data (schema gradlint-diff/1)."""
    return {
        "schema": "gradlint-diff/1",
        **{
            name: [{"target": each.target["target"], **each.finding} for each in getattr(found, name)]
            for name in ("new", "fixed", "unchanged")
        },
        "models": [
            {
                "target": movement.target,
                "status": movement.word or "changed",
                "numbers": {each.label: [each.before, each.after] for each in movement.numbers},
            }
            for movement in found.movements
        ],
        "failures": [dict(zip(("side", "target", "message"), failure, strict=True)) for failure in found.failures],
    }


def _place(each: Located) -> str:
    path = each.finding["path"] or each.target["path"] or each.target["target"]
    line = each.finding["line"] or each.target["line"]
    return f"{path}:{line}" if line else str(path)


def _row(each: Located) -> str:
    finding = each.finding
    cells = (f"{finding['severity']} `{finding['rule']}`", f"`{_place(each)}`", _cell(finding["message"]))
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return flat.replace("@", "@<!-- -->")
