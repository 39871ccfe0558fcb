"""What a graph makes one ask the probe: does a prediction depend on another sample, or on a position after its own?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gradlint.graph.causality import causal, masked, shifted
from gradlint.graph.ir import Graph, Op, Value
from gradlint.graph.lanes import Lane, Where, lanes
from gradlint.graph.memo import remembered
from gradlint.profile import Question

SEQUENTIAL = frozenset({"recurrent", "attention", "matmul"})


@dataclass(frozen=True)
class Suspect:
    """An op and the question whose answer convicts it; `mask` is the mask that says the model means to be causal."""

    op: int
    question: Question
    mask: int | None = None

    @property
    def subject(self) -> tuple[int | str, ...]:
        """The question as the subject of a claim."""
        asked = self.question
        return asked.end, asked.end_axis, asked.source, asked.source_axis


@remembered
def questions(graph: Graph) -> tuple[Suspect, ...]:
    """Every suspect of the graph; most graphs have none, and then nothing is asked."""
    return (*mixers(graph), *leaks(graph))


def mixers(graph: Graph) -> Iterator[Suspect]:
    """The op that first combines the samples of the batch on the way to an output of one prediction a sample.

    A reshape that cuts across the samples is one, and an attention or recurrence that runs along axis 0, when what it
    takes for the samples is then given up: picked from or summed over. A model that is fed time first keeps it.
    """
    end = _output(graph)
    size = next((graph.values[v].shape[0] for v in graph.inputs if graph.values[v].shape), 0)
    if end is None or not end.shape or end.shape[0] != size or size < 2:
        return
    samples, steps = lanes(graph)
    source = _first(graph, samples)
    if source is None:
        return
    for op in graph.ops:
        if any(isinstance(samples.get(v), Lane) for v in op.inputs) and op.outputs:
            fate = samples.get(op.outputs[0])
            lost = op.kind in SEQUENTIAL and fate == "mixed" and steps.get(end.id) == "gone" and _follows(op, steps)
            if lost or (fate == "scrambled" and op.kind == "reshape"):
                yield Suspect(op.index, Question(end.id, 0, source, 0))
                return


def _follows(op: Op, steps: Mapping[int, Where]) -> bool:
    """Whether the inputs' axis 1 is still there where the op reads: it is what the op takes for the samples."""
    return any(isinstance(steps.get(v), Lane) for v in op.inputs)


def leaks(graph: Graph) -> Iterator[Suspect]:
    """The first op that is meant to see only earlier positions, in a model that predicts something at each of them."""
    end = _output(graph)
    if end is None or len(end.shape) < 2:
        return
    for op, mask in _meant(graph):
        count = _positions(graph, op)
        source = _before(graph, op, count)
        axis = next((axis for axis in (1, len(end.shape) - 1) if end.shape[axis] == count), None)
        if source is not None and axis is not None:
            place = next(a for a in range(1, len(source.shape)) if source.shape[a] == count)
            yield Suspect(op.index, Question(end.id, axis, source.id, place), mask)
            return


def _meant(graph: Graph) -> Iterator[tuple[Op, int | None]]:
    """Ops that show the intent, with a mask whose values decide it where the graph does not."""
    for op, mask in masked(graph):
        if mask is None or causal(graph, mask):
            yield op, None
        elif _constant(graph, mask):
            yield op, mask
    yield from ((op, None) for op in shifted(graph))


def _constant(graph: Graph, mask: int) -> bool:
    """Whether the mask has rows for positions and columns for positions: only then can it be a triangle."""
    shape = graph.values[mask].shape
    return len(shape) >= 2 and shape[-1] == shape[-2] > 1


def _positions(graph: Graph, op: Op) -> int:
    """How many positions the op is about: the rows of its logits, or the steps of a convolution."""
    shape = graph.values[op.outputs[0]].shape
    return shape[-1] if op.kind == "conv" else shape[-2] if len(shape) > 1 else 0


def _before(graph: Graph, op: Op, count: int) -> Value | None:
    """The earliest value of the op's own stream with an axis of positions after the batch, and with a gradient."""
    found, behind = None, set(op.inputs)
    for earlier in reversed(graph.ops[: op.index]):
        if not behind.intersection(earlier.outputs):
            continue
        value = graph.values[earlier.outputs[0]]
        if not value.requires_grad:
            continue
        behind.update(v for v in earlier.inputs if graph.values[v].requires_grad)
        if _is_floating(value) and count in value.shape[1:] and len(value.shape) == 3:
            found = value
    return found if count > 1 else None


def _first(graph: Graph, samples: Mapping[int, Where]) -> int | None:
    """A floating input that lies by samples, or the first value with a gradient that does: what ids are turned into."""
    made = [v for op in graph.ops for v in op.outputs[:1] if graph.values[v].requires_grad]
    for value in (*(v for v in graph.inputs if _is_floating(graph.values[v])), *made):
        shape = graph.values[value].shape
        if shape and samples.get(value) == Lane(0, shape[0]):
            return value
    return None


def _is_floating(value: Value) -> bool:
    return value.dtype.startswith(("float", "bfloat"))


def _output(graph: Graph) -> Value | None:
    """The output that a loss is applied to: the first floating one that a gradient can flow back from."""
    floating = [graph.values[v] for v in graph.outputs if _is_floating(graph.values[v])]
    return next((value for value in floating if value.requires_grad), None)
