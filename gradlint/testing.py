"""Rule examples as tests: the literate blocks of a rule's page are linted and compared with their own markers.

A section of a page that holds a ```py block is one test. The block is run as a module and must leave behind `model` (a
module) and `inputs` (a tensor, a tuple of positional arguments or a dict of keyword arguments), and may set `loss` to
one of the names of `--loss` and `dtype` to one of `--dtype`. A line that a finding is placed on ends in `# error:
[rule]`, whatever its severity; only the rules named in the section and the page's own are run. A section without a
marker is a healthy example: every stable rule is run, and none may report an error or a warning.

`pytest` collects the pages when a conftest.py says `from gradlint.testing import pytest_collect_file`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gradlint import registry
from gradlint.config import Settings
from gradlint.finding import Finding
from gradlint.report.source import Sources
from gradlint.result import ProbeRun, TargetReport
from gradlint.rule import Rule
from gradlint.source.comments import comments
from gradlint.suppress import Entry, suppress

_FENCE = re.compile(r"^```py\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#{2,3}) (.+)$", re.MULTILINE)
_MARKER = re.compile(r"# error: \[([a-z0-9-]+)\]")

Expected = tuple[int, str]  # line of the page, rule


@dataclass(frozen=True)
class Section:
    """One test of a page. `code` starts at line 1 of the page, so that its line numbers are those of the page."""

    title: str
    code: str
    line: int

    @property
    def expected(self) -> list[Expected]:
        """The marked findings, by line."""
        lines = enumerate(self.code.splitlines(), start=1)
        return [(number, found) for number, text in lines for found in _MARKER.findall(text)]


def sections(page: str) -> list[Section]:
    """The sections of a page that hold code, in order; several blocks of one section are one program."""
    starts = [(found.start(), found.group(2)) for found in _HEADING.finditer(page)]
    ends = [start for start, _ in starts[1:]] + [len(page)]
    found = (_section(page, title, start, end) for (start, title), end in zip(starts, ends, strict=True))
    return [section for section in found if section is not None]


def run(section: Section, path: Path) -> list[Finding]:
    """The findings on the section's model. Raises AssertionError when the block defines no model or no inputs."""
    import torch

    from gradlint.capture.construction import construction_spans

    namespace: dict[str, object] = {"__name__": "example"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with construction_spans():
            exec(compile(section.code, str(path), "exec"), namespace)
        missing = {"model", "inputs"} - set(namespace)
        assert not missing, f"the example defines no {' and no '.join(sorted(missing))}"
        loss = namespace.get("loss")
        assert loss is None or isinstance(loss, str), f"loss is a name, not {loss!r}"
        dtype = namespace.get("dtype")
        assert dtype is None or isinstance(dtype, str), f"dtype is a name, not {dtype!r}"
        rules = rules_for(section, path)
        found = lint(namespace["model"], namespace["inputs"], loss=loss, dtype=dtype, rules=rules)
    return commented(found, section, path, rules)


def lint(
    model: object,
    inputs: object,
    *,
    loss: str | None = None,
    dtype: str | None = None,
    rules: Iterable[Rule] = (),
    seed: int = 0,
) -> list[Finding]:
    """The findings of these rules (none: all) on a live model, by the pipeline that the command line runs.

    `inputs` is a tensor, a tuple of positional arguments or a dict of keyword arguments; `loss` is a name of `--loss`
    and `dtype` one of `--dtype`.
    """
    from gradlint.analysis import analyse_model
    from gradlint.load import LoadedModel

    args = () if isinstance(inputs, dict) else inputs if isinstance(inputs, tuple) else (inputs,)
    kwargs = inputs if isinstance(inputs, dict) else {}
    names = tuple(rule.name for rule in rules)
    settings = Settings(select=names, loss=loss, dtype=dtype, seed=seed, device="cpu", fix=False)
    loaded = LoadedModel(
        model=model,  # type: ignore[arg-type]
        args=args,
        kwargs=kwargs,
        inputs=(),
        name=type(model).__name__,
        span=None,
        rebuild=None,
        draw=lambda seed: (args, kwargs),
    )
    return list(analyse_model(loaded.name, None, loaded, settings).findings)


def commented(findings: Iterable[Finding], section: Section, path: Path, rules: Iterable[Rule]) -> list[Finding]:
    """The findings as the section's suppression comments leave them, and those on comments that suppress nothing."""
    report = TargetReport(path.stem, str(path), None, "analysed", probe=ProbeRun(True), findings=tuple(findings))
    settings = Settings(select=tuple(rule.name for rule in rules))
    (judged,) = suppress([Entry(report, settings, str(path))], Sources({str(path): section.code}))
    return list(judged.findings)


def rules_for(section: Section, path: Path) -> tuple[Rule, ...]:
    """The page's own rule and those of the section's markers and comments; every stable one without markers."""
    known = {rule.name for rule in registry.rules()}
    named = {rule for _, rule in section.expected}
    named |= {rule for comment in comments(section.code) for rule in comment.rules if named and rule in known}
    return registry.select(sorted({_own(path).name, *named})) if named else registry.select()


def compare(expected: Iterable[Expected], findings: Iterable[Finding]) -> list[str]:
    """One line for each finding that is missing (marked, not found) or noisy (found, not marked, no mere note)."""
    standing = [finding for finding in findings if finding.stands]
    found = {_place(finding) for finding in standing}
    loud = {_place(finding) for finding in standing if finding.severity != "info"}
    wanted = set(expected)
    missing = [f"missing: {_show(each)}" for each in sorted(wanted - found)]
    return missing + [f"noisy: {_show(each)}" for each in sorted(loud - wanted)]


class Page(pytest.File):
    """A rule's page as a test file."""

    def collect(self) -> Iterator[Example]:
        """One item for each section that holds code."""
        for section in sections(self.path.read_text(encoding="utf-8")):
            yield Example.from_parent(self, name=section.title, section=section)


class Example(pytest.Item):
    """One section of a rule's page as a test."""

    def __init__(self, *, section: Section, **parent: object) -> None:
        super().__init__(**parent)  # type: ignore[arg-type]
        self.section = section

    def runtest(self) -> None:
        """Lint the section's model and compare with its markers."""
        findings = run(self.section, self.path)
        differences = compare(self.section.expected, findings)
        if differences:
            raise AssertionError("\n".join([*differences, *(_describe(finding) for finding in findings)]))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        """The differences alone when the comparison failed, the traceback otherwise."""
        if isinstance(excinfo.value, AssertionError):
            return f"{self.path}:{self.section.line}: {self.section.title}\n{excinfo.value}"
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where the section starts."""
        return self.path, self.section.line - 1, f"{self.path.stem}: {self.section.title}"


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Page | None:
    """Collect a Markdown file that lies beside a rule of the same name."""
    if file_path.suffix == ".md" and file_path.with_suffix(".py").exists():
        return Page.from_parent(parent, path=file_path)
    return None


def _section(page: str, title: str, start: int, end: int) -> Section | None:
    blocks = [(found.start(1), found.end(1)) for found in _FENCE.finditer(page, start, end)]
    if not blocks:
        return None
    kept = [*_kept(page, blocks)]
    return Section(title, "".join(kept), page.count("\n", 0, start) + 1)


def _kept(page: str, blocks: list[tuple[int, int]]) -> Iterator[str]:
    """The blocks' text with everything before and between them left as empty lines."""
    position = 0
    for start, end in blocks:
        yield "\n" * page.count("\n", position, start)
        yield page[start:end]
        position = end


def _own(path: Path) -> Rule:
    name = path.stem.replace("_", "-")
    return registry.find(name)


def _place(finding: Finding) -> Expected:
    return (finding.span.line if finding.span else 0, finding.rule)


def _show(place: Expected) -> str:
    return f"line {place[0]}: [{place[1]}]"


def _describe(finding: Finding) -> str:
    line = finding.span.line if finding.span else 0
    numbers = {**finding.predicted, **{f"measured {name}": value for name, value in finding.measured.items()}}
    return (
        f"  {line}: {finding.severity} {finding.rule} ({finding.verdict}) {finding.message} {numbers} {finding.reason}"
    )
