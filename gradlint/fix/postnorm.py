"""Residual blocks that normalise after the addition, and what makes pre-norm blocks of them."""

from __future__ import annotations

from dataclasses import dataclass

from gradlint.fix.candidate import Bypass, Prenormalise
from gradlint.fix.residual import ancestors_of
from gradlint.fix.stretch import operands
from gradlint.graph.ir import Graph, Op

NORMS = frozenset({"layer_norm", "rms_norm"})


@dataclass(frozen=True)
class Block:
    """x = norm(x + f(x)): its addition and norm, the value x, and the ops of the branch f that read it."""

    add: Op
    norm: Op
    source: int
    readers: tuple[Op, ...]


def post_norm_blocks(graph: Graph) -> tuple[Block, ...]:
    """The blocks whose skip is the identity and whose sum a layer or RMS norm alone reads, in order.

    The branch is the summand that depends on the other one; it may depend on more, as cross-attention does.
    """
    known, found = ancestors_of(graph), list[Block]()
    for add in graph.ops:
        ends, norm = operands(graph, add), _only_reader(graph, add)
        if add.kind != "add" or len(set(ends)) != 2 or norm is None or norm.function not in NORMS:
            continue
        source, branch = ends if known[ends[1]] >> ends[0] & 1 else ends[::-1]
        readers = [graph.ops[index] for index in graph.values[source].consumers if index != add.index]
        inside = [op for op in readers if any(known[branch] >> value & 1 for value in op.outputs)]
        if known[branch] >> source & 1 and inside:
            found.append(Block(add, norm, source, tuple(inside)))
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
    readers = graph.values[add.outputs[0]].consumers if add.outputs else ()
    return graph.ops[readers[0]] if len(readers) == 1 else None
