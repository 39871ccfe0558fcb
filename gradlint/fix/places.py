"""A graph as the user's source sees it: modules by path, what one piece of source makes, and how parts are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from gradlint.fix.wording import is_module
from gradlint.graph.ir import Graph, Module, Op, Span

INDEXED = ("Sequential", "ModuleList")


class NoChangeError(Exception):
    """A step is about something that the source has no single place for."""


@dataclass(frozen=True)
class Places:
    """A graph as the source sees it: its modules by path, and which ops one piece of source makes."""

    graph: Graph

    @cached_property
    def modules(self) -> Mapping[str, Module]:
        """The modules by path."""
        return {module.path: module for module in self.graph.modules}

    @property
    def root(self) -> Module:
        """The model itself."""
        if "" not in self.modules:
            raise NoChangeError
        return self.modules[""]

    def alike(self, site: tuple[Span | None, str, bool]) -> list[Op]:
        """The ops that the piece of source makes. Raises NoChangeError for an unknown place."""
        if site[0] is None:
            raise NoChangeError
        return [op for op in self.graph.ops if site_of(op) == site]

    def inside(self, op: Op) -> str | None:
        """The path of torch's own Sequential that calls the op's module; None for one that a forward calls."""
        parent = owner_of(op.module_path)
        module = self.modules.get(parent) if op.module_path else None
        held = module is not None and module.builtin and module.type == "Sequential"
        return parent if held and self.is_builtin(op) else None

    def is_builtin(self, op: Op) -> bool:
        """Whether one of torch's own modules made the call."""
        module = self.modules.get(op.module_path)
        return module is not None and module.builtin

    def expression(self, path: str) -> str:
        """The module as a method of the root writes it: "self.hidden[-1]"."""
        written = "".join(_written(path, self.modules))
        return f"self{written}" if "?" not in written else f'self.get_submodule("{path}")'

    def weight(self, path: str) -> str:
        """The parameter as a method of the root writes it: "self.embed.weight". Raises NoChangeError."""
        owner, _, name = path.rpartition(".")
        if owner and owner not in self.modules:
            raise NoChangeError
        return f"{self.expression(owner) if owner else 'self'}{f'[{name}]' if name.isdigit() else f'.{name}'}"


def site_of(op: Op) -> tuple[Span | None, str, bool]:
    """What ops that one piece of source makes have in common."""
    return (op.constructed if is_module(op) else op.span), op.function, is_module(op)


def owner_of(path: str) -> str:
    """The path of the module that a parameter, or a module, belongs to."""
    return path.rpartition(".")[0]


def _written(path: str, modules: Mapping[str, Module]) -> Iterator[str]:
    parts = path.split(".")
    for place, part in enumerate(parts):
        parent = ".".join(parts[:place])
        if part.partition("[")[0].isidentifier():  # what a plain list holds is called "blocks[0]"
            yield f".{part}"
        elif part.isdigit() and parent in modules and modules[parent].type in INDEXED:
            last = f"{parent}.{int(part) + 1}".lstrip(".") not in modules and int(part) > 0
            yield "[-1]" if last else f"[{part}]"
        else:
            yield "?"
