"""GL910: a prediction that depends on the other samples of its batch."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Claim, Draft
from gradlint.graph.ir import Graph, Op
from gradlint.probe.question import mixers
from gradlint.profile import Measurement
from gradlint.quantity import QUANTITIES
from gradlint.rule import rule

HOW = {
    "recurrent": "runs along axis 0, which holds the samples: it takes the time steps for them (`batch_first`?)",
    "attention": "attends along axis 0, which holds the samples: it takes the positions for them (`batch_first`?)",
    "matmul": "multiplies along axis 0, which holds the samples",
    "reshape": "cuts across the samples: it keeps the order of the numbers, where a transpose moves the axes",
}


@rule(
    code="GL910",
    name="mixed-samples",
    family="wiring",
    severity="warning",
    since="0.1.0",
    options={"decades": -6.0},
)
def mixed_samples(graph: Graph, probe: Measurement, options: dict[str, float]) -> Iterator[Draft]:
    """An op that combines the samples of a batch, when the probe finds predictions that depend on other samples."""
    for suspect in mixers(graph):
        share = QUANTITIES["other-samples"].function(graph, probe, suspect.subject)
        if share is None or share <= options["decades"]:
            continue
        op: Op = graph.ops[suspect.op]
        yield Draft(
            message=f"{op.function or op.kind} {HOW.get(op.kind, 'combines the samples of the batch')}",
            op=op.index,
            ops=(op.index,),
            claim=Claim("other-samples", suspect.subject, options["decades"], "above"),
        )
