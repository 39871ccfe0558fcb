"""What a constructor does with its parameters: with their fields, their entries, and what it passes on."""

import ast
import textwrap

import pytest

from gradlint.source.text import read
from gradlint.source.usage import Use, parameter_uses


@pytest.fixture
def uses(tmp_path):
    """The uses of the parameters of the last class of a file, beside which others may lie."""

    def find(text, **beside):
        for name, other in beside.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(other))
        (tmp_path / "model.py").write_text(textwrap.dedent(text))
        source = read(tmp_path / "model.py")
        return parameter_uses([n for n in source.tree.body if isinstance(n, ast.ClassDef)][-1], source)

    return find


BODIES = {
    "a length": ("self.n = len(x)", "x", Use("sequence")),
    "a class": ("self.layer = x()", "x", Use("callable")),
    "a text": ("if x == 'gelu': pass", "x", Use("text", "gelu")),
    "a text in any case": ("if x.lower() == 'gelu': pass", "x", Use("text", "gelu")),
    "a text that is accepted": (
        "if x == 'a': raise ValueError(x)\n        if x != 'b' and x != 'c': raise ValueError(x)",
        "x",
        Use("text", "b"),
    ),
    "the first text": ("if x == 'a' or x == 'b': pass\n        if x == 'c': pass", "x", Use("text", "a")),
    "one of few numbers": ("assert x in (121, 169)", "x", Use("choice", 121)),
    "a key of a table": ("width = {'h': 4, 't': 5}[x]", "x", Use("text key", "h")),
    "a key of a table in a variable": ("table = {'h': 4}\n        width = table[x]", "x", Use("text key", "h")),
    "what may be left out": ("if x is not None: pass", "x", Use("optional")),
    "a field": ("n = len(x.sizes)", "x.sizes", Use("sequence")),
    "a key": ("n = len(x['sizes'])", "x.sizes", Use("sequence")),
    "a field through self": ("self.x = x\n        n = len(self.x.sizes)", "x.sizes", Use("sequence")),
    "a field in a variable": ("kind = x.kind\n        if kind == 'sine': pass", "x.kind", Use("text", "sine")),
    "entries of two lists": ("for a, b in zip(x, y): c = b[2]", "y[]", Use("sequence", length=3)),
    "an entry by its place": ("n = len(x[0])", "x[]", Use("sequence")),
    "entries one by one": ("for i, (a, b) in enumerate(zip(x, y)): c = len(a)", "x[]", Use("sequence")),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_constructor_tells_what_its_parameters_are(uses, case):
    body, path, use = BODIES[case]
    found = uses(f"class Net:\n    def __init__(self, x, y):\n        {body}\n")
    assert found[path] == use


def test_a_method_tells_it_of_what_the_constructor_stores(uses):
    found = uses(
        """
        class Net:
            def __init__(self, cfg, net):
                self.task, self.net = cfg.task, net
            def forward(self, x):
                if self.task == "forecast":
                    return self.net(x)
        """
    )
    assert found["cfg.task"] == Use("text", "forecast")
    assert found["net"] == Use("module")


def test_what_is_passed_on_is_used_as_its_taker_uses_it(uses):
    found = uses(
        """
        from blocks import Embed
        def mlp(sizes, act):
            return [act() for s in sizes]
        class Small: ...
        class Net:
            def __init__(self, cfg, act, flag):
                self.embed = Embed(cfg.dim, kind=cfg.embed)
                self.mlp = mlp(cfg.sizes, act)
                make = Small if flag else mlp
        """,
        blocks="""
        class Base:
            def __init__(self, dim: int, kind="fixed"):
                table = {"timeF": 1}
                self.dim = [1] * len(dim) if isinstance(dim, list) else dim
                self.size = table[kind]
        class Embed(Base): ...
        """,
    )
    assert found["cfg.sizes"] == Use("sequence")
    assert found["act"] == Use("callable")
    assert found["cfg.embed"] == Use("usual", "fixed"), "a default says more than a comparison"
    assert found["cfg.dim"] == Use("annotated", "int"), "a single value where lists would do as well"


def test_the_rest_of_the_arguments_are_the_base_s(uses):
    found = uses(
        """
        class Base:
            def __init__(self, act): self.act = act()
        class Net(Base):
            def __init__(self, width, **rest): super().__init__(**rest)
        """
    )
    assert found["act"] == Use("callable")


def test_what_may_be_one_value_is_no_sequence(uses):
    found = uses(
        """
        def cast_tuple(value, n):
            return value if isinstance(value, (tuple, list)) else (*value, value[-1]) * n
        class Net:
            def __init__(self, depth, sizes):
                self.depths = cast_tuple(depth, 3)
                assert isinstance(sizes, list) and len(sizes) == 2
        """
    )
    assert found["depth"] == Use("named", "value")
    assert found["sizes"] == Use("sequence")


def test_functions_that_call_each_other_end(uses):
    found = uses(
        """
        def one(n): return two(n)
        def two(n): return one(n) if n else len(n)
        class Net:
            def __init__(self, n): self.n = one(n)
        """
    )
    assert found["n"] == Use("sequence")
