"""GL504: deep transformers that normalise after the addition, so that every layer depends heavily on its branches."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Claim, Draft
from gradlint.graph import traversal
from gradlint.graph.ir import Graph, Op
from gradlint.profile import Signal
from gradlint.quantity import QUANTITIES
from gradlint.rule import rule
from gradlint_rules import diagnosis, passage

HEAVY = 0.5  # decades from a branch to its sum: below it the branch is more than a tenth of the sum's variance
NORMS = frozenset({"layer_norm", "rms_norm"})


@rule(
    code="GL504",
    name="deep-post-norm",
    family="architecture",
    severity="info",
    since="0.1.0",
    options={"layers": 18},
)
def deep_post_norm(graph: Graph, signal: Signal, options: dict[str, int]) -> Iterator[Draft]:
    """Stacks of `layers` attention blocks whose sums all pass a norm and hold much of their branches."""
    crossed = set(traversal.series_ops(graph))
    sums = [graph.ops[merge.op] for merge in traversal.residuals(graph) if merge.op in crossed]
    pairs = [(op, norm) for op in sums if (norm := _norm(graph, op)) is not None and norm.index in crossed]
    attends = sum(op.kind == "attention" or (op.kind == "softmax" and op.index not in crossed) for op in graph.ops)
    if min(attends, len(pairs) // 2) < options["layers"] or len(pairs) < 0.8 * len(sums):
        return
    subjects = [(branch, op.outputs[0]) for op, _ in pairs if (branch := _branch(graph, op)) is not None]
    known = [(QUANTITIES["activation-change"].function(graph, signal, pair), pair) for pair in subjects]
    shares = sorted((size, pair) for size, pair in known if size is not None)
    if not shares or shares[len(shares) // 2][0] > HEAVY:
        return
    change, subject = shares[len(shares) // 2]
    norms = [norm for _, norm in pairs]
    yield Draft(
        message=f"{len(pairs) // 2} layers normalise after the addition (post-norm), and {10 ** (-2 * change):.0%} "
        "of a sum's variance is its branch's: without warm-up such a stack rarely trains",
        op=norms[0].index,
        module=diagnosis.common(norms) or None,
        ops=tuple(op.index for pair in pairs for op in pair),
        related=diagnosis.related(graph, norms, f"the last of {len(norms)}"),
        claim=Claim("activation-change", subject, HEAVY, "below"),
    )


def _norm(graph: Graph, op: Op) -> Op | None:
    """The layer norm that alone reads the sum."""
    readers = list(passage.after(graph, op, passage.KEEPING))
    return readers[0] if len(readers) == 1 and readers[0].kind == "norm" and readers[0].function in NORMS else None


def _branch(graph: Graph, op: Op) -> int | None:
    """The summand that was made last: the other one is what the block was given."""
    made = [value for value in graph.data_inputs(op) if graph.values[value].producer is not None]
    return max(made, default=None)
