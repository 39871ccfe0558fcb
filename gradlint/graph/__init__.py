"""The graph of one recorded run as plain data: it serialises to JSON and never touches a torch object."""

from gradlint.graph.ir import KINDS, Coverage, Fixed, Graph, Module, Op, Param, Span, Value

__all__ = ["KINDS", "Coverage", "Fixed", "Graph", "Module", "Op", "Param", "Span", "Value"]
