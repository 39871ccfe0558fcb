"""Residual blocks that normalise after the addition, and what makes pre-norm blocks of them."""

from __future__ import annotations

from dataclasses import dataclass

from gradlint.fix.candidate import Bypass, Prenormalise
from gradlint.fix.stretch import operands
from gradlint.graph.ir import Graph, Op
from gradlint.graph.merge import between, residuals

NORMS = frozenset({"layer_norm", "rms_norm"})


@dataclass(frozen=True)
class Block:
    """x = norm(x + f(x)): its addition and norm, the value x, and the ops of the branch f that read it."""

    add: Op
    norm: Op
    source: int
    readers: tuple[Op, ...]


def post_norm_blocks(graph: Graph) -> tuple[Block, ...]:
    """The blocks whose skip is the identity and whose sum a layer or RMS norm alone reads, in order."""
    found = []
    for merge in residuals(graph):
        add = graph.ops[merge.op]
        norm = _only_reader(graph, add)
        forks = graph.inputs if merge.fork is None else graph.ops[merge.fork].outputs
        sources = [value for value in operands(graph, add) if value in forks]
        if merge.fewest or norm is None or norm.function not in NORMS or len(sources) != 1:
            continue
        inside = between(graph, merge)
        readers = tuple(graph.ops[op] for op in graph.values[sources[0]].consumers if op in inside)
        found.append(Block(add, norm, sources[0], readers))
    return tuple(found)


def pre_norm(graph: Graph) -> tuple[Bypass | Prenormalise, ...]:
    """The steps that make pre-norm blocks of a stack of post-norm ones (Xiong et al. 2020, figure 1); none without one.

    Of a stack each norm but the last stays before the branch that follows it, while the sum takes what went into it.
    The first branch gets a norm, and the last one is the final norm that a pre-norm stack has.
    """
    blocks = post_norm_blocks(graph)
    norms = {block.norm.outputs[0]: block.norm for block in blocks}
    if not any(block.source in norms for block in blocks):
        return ()
    return tuple(
        Bypass(block.add.index, norms[block.source].index, block.source)
        if block.source in norms
        else Prenormalise(tuple(op.index for op in block.readers), block.source, block.norm.function)
        for block in blocks
    )


def stacks(blocks: tuple[Block, ...]) -> list[list[Block]]:
    """The blocks by stack: each takes what the norm of the one before it made."""
    rows: list[list[Block]] = []
    for block in blocks:
        row = next((row for row in rows if row[-1].norm.outputs[0] == block.source), None)
        if row is None:
            rows.append([block])
        else:
            row.append(block)
    return rows


def _only_reader(graph: Graph, add: Op) -> Op | None:
    readers = graph.values[add.outputs[0]].consumers
    return graph.ops[readers[0]] if len(readers) == 1 else None
