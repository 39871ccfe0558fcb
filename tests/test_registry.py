from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace

import pytest

from gradlint import registry
from gradlint.error import GradlintError, UsageError
from gradlint.finding import Draft
from gradlint.graph.ir import Graph
from gradlint.rule import Rule, rule


def check(graph: Graph) -> Iterable[Draft]:
    return ()


def declare(code: str, name: str, family: str = "vanishing", status: str = "stable") -> Rule:
    return Rule(code, name, family, "warning", "0.1.0", check, {}, status)  # type: ignore[arg-type]


PACK = (
    declare("GL101", "saturating-chain"),
    declare("GL301", "vanishing-init", "init"),
    declare("GL302", "large-init", "init"),
    declare("GL601", "dead-units", "units", "preview"),
)


@pytest.mark.parametrize(
    ("selected", "names"),
    [
        ((), ["saturating-chain", "vanishing-init", "large-init"]),
        (("all",), ["saturating-chain", "vanishing-init", "large-init"]),
        (("vanishing-init",), ["vanishing-init"]),
        (("GL302",), ["large-init"]),
        (("gl3",), ["vanishing-init", "large-init"]),
        (("init",), ["vanishing-init", "large-init"]),
        (("units",), []),
        (("dead-units",), ["dead-units"]),
        (("GL601", "GL101"), ["saturating-chain", "dead-units"]),
    ],
)
def test_rules_are_selected_by_name_code_prefix_and_family(selected: tuple[str, ...], names: list[str]) -> None:
    assert [found.name for found in registry.select(selected, among=PACK)] == names


def test_ignored_rules_are_left_out() -> None:
    assert [found.code for found in registry.select((), ("init",), among=PACK)] == ["GL101"]


@pytest.mark.parametrize("selector", ["saturating-chian", "GL999", "gradients"])
def test_an_unknown_selector_is_an_error(selector: str) -> None:
    with pytest.raises(UsageError, match=selector):
        registry.select((selector,), among=PACK)


def test_a_misspelt_rule_names_its_nearest_match() -> None:
    with pytest.raises(UsageError) as caught:
        registry.find("saturating-chian", PACK)
    assert caught.value.hint == "did you mean saturating-chain?"


def test_a_rule_is_found_by_name_and_by_code() -> None:
    assert registry.find("GL302", PACK) is registry.find("large-init", PACK)


@pytest.mark.parametrize("double", [replace(PACK[0], name="other"), replace(PACK[0], code="GL199")])
def test_two_rules_of_one_code_or_name_are_an_error(double: Rule) -> None:
    with pytest.raises(GradlintError, match="two rules are called"):
        registry.check_unique((*PACK, double))


def test_the_first_party_pack_is_found_without_an_installation() -> None:
    assert registry.packs()[0] == registry.BUILTIN


def test_an_unimportable_pack_is_an_error_that_names_it() -> None:
    with pytest.raises(GradlintError, match="no_such_pack"):
        registry.rules_of("no_such_pack")


def test_finding_the_rules_does_not_import_torch() -> None:
    code = "import sys; from gradlint import registry; registry.rules(); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize("found", registry.rules(), ids=lambda found: found.name)
def test_every_rule_has_a_page_with_the_fixed_headings(found: Rule) -> None:
    page = registry.page(found)
    headings = [line[3:] for line in page.splitlines() if line.startswith("## ")]
    assert page.startswith(f"# {found.code} {found.name}\n")
    assert headings == [
        "What it does",
        "Why it hurts training",
        "How it is decided",
        "What the probe checks",
        "Fixes and their price",
        "Known limits",
        "References",
        "Examples",
    ]


@pytest.mark.parametrize("found", registry.rules(), ids=lambda found: found.name)
def test_every_rule_has_a_one_line_summary(found: Rule) -> None:
    assert 20 < len(registry.summary(found)) < 200


@pytest.mark.parametrize("found", registry.rules(), ids=lambda found: found.name)
def test_the_options_of_a_rule_are_explained_on_its_page(found: Rule) -> None:
    assert [name for name in found.options if f"`{name}`" not in registry.page(found)] == []


@pytest.mark.parametrize(
    "wrong", [{"code": "X1"}, {"name": "Saturating_Chain"}, {"family": "style"}], ids=["code", "name", "family"]
)
def test_a_rule_of_the_wrong_form_is_refused(wrong: dict[str, str]) -> None:
    declared = {"code": "GL101", "name": "saturating-chain", "family": "vanishing"} | wrong
    with pytest.raises(ValueError, match=next(iter(wrong))):
        rule(**declared, severity="warning", since="0.1.0")  # type: ignore[arg-type]


def test_a_rule_that_asks_for_an_unknown_fact_is_refused() -> None:
    def wants(model: object) -> Iterable[Draft]:
        return ()

    with pytest.raises(ValueError, match="model"):
        rule(code="GL101", name="x", family="vanishing", severity="warning", since="0.1.0")(wants)
