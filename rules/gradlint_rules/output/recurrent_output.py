"""GL704: a prediction that is the hidden state of a recurrent cell, and so lies between -1 and 1."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph
from gradlint.rule import rule
from gradlint_rules import passage

THROUGH = passage.SHAPING | {"concat"}
BOUNDED = frozenset({"lstm", "gru", "rnn_tanh"})


@rule(code="GL704", name="recurrent-output", family="output", severity="warning", since="0.1.0")
def recurrent_output(graph: Graph) -> Iterator[Draft]:
    """A recurrent cell of one unit whose state is the model's output: encoders have more units, predictions a head."""
    value = passage.output(graph)
    op = None if value is None else passage.before(graph, value.id, THROUGH)
    if op is None or op.kind != "recurrent" or op.function not in BOUNDED or op.attrs.get("hidden") != 1:
        return
    yield Draft(
        message=f"the output is the state of a one-unit {op.function}, which stays between -1 and 1",
        op=op.index,
        ops=(op.index,),
        numbers={"greatest-entry": (op.outputs[0],)},
    )
