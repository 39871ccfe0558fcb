"""The graph of one recorded run as plain data: it serialises to JSON and never touches a torch object."""

from gradlint.graph.ir import HIDING, KINDS, Coverage, Fixed, Graph, Module, Op, Param, Span, Value

__all__ = ["HIDING", "KINDS", "Coverage", "Fixed", "Graph", "Module", "Op", "Param", "Span", "Value"]
