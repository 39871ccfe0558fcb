"""Handlers of LSTM, GRU and RNN: one layer of torch's, its weights cut and ordered as torch has them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gradlint.onnx.node import Handler, Node, UnsupportedError, shape_of
from gradlint.onnx.program import Array, Symbol, known

GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}  # ONNX iofc and zrh in torch's order: ifgo and rzn
DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
FUNCTIONS = {"LSTM": "T.lstm", "GRU": "T.gru", "RNN": "T.rnn_tanh"}
REFUSED = ("clip", "input_forget")


def recurrent(n: Node) -> list[Symbol | None]:
    """Outputs of all steps, the last hidden state, and an LSTM's last cell state."""
    kind, hidden = n.spec.op, n.attr("hidden_size")
    direction = n.attr("direction", "forward")
    ways = 2 if direction == "bidirectional" else 1
    function = _function(n, ways)
    x = n[0]
    if n.attr("layout", 0):
        x = _moved(n, x, (1, 0, 2))
    steps, batch, _ = shape_of(x)
    _check_lengths(n, steps)
    backward = direction == "reverse"
    if backward:
        x = n.like("T.flip", x, (0,))
    weights, biases = _weights(n, kind, ways, hidden)
    states = [_state(n, position, (ways, batch, hidden)) for position in ((5, 6) if kind == "LSTM" else (5,))]
    given = states if kind == "LSTM" else states[0]
    described = [((steps, batch, ways * hidden), x.dtype), *[((ways, batch, hidden), x.dtype)] * len(states)]
    found = n.emitter.emit(
        f"torch.{function[2:]}",
        (x, given, weights, biases, 1, 0.0, False, ways == 2, False),
        {},
        described,
        n.spec.place,
    )
    y, last = found[0], list(found[1:])
    if backward:
        y = n.like("T.flip", y, (0,))
    if ways == 1 and not n.attr("layout", 0):
        y = n.step("T.unsqueeze", y, 1, shape=(steps, 1, batch, hidden), dtype=y.dtype)
        return [y, *last]
    split = (steps, batch, ways, hidden)
    y = n.step("M.reshape", y, split, shape=split, dtype=y.dtype)
    y = _moved(n, y, (1, 0, 2, 3) if n.attr("layout", 0) else (0, 2, 1, 3))
    return [y, *(_moved(n, s, (1, 0, 2)) if n.attr("layout", 0) else s for s in last)]


def _moved(n: Node, x: Symbol, order: tuple[int, ...]) -> Symbol:
    shape = shape_of(x)
    return n.step("M.permute", x, order, shape=[shape[axis] for axis in order], dtype=x.dtype)


def _function(n: Node, ways: int) -> str:
    kind = n.spec.op
    given = [str(name) for name in n.attr("activations") or DEFAULTS[kind] * ways]
    if any(n.attr(name) for name in REFUSED) or (n.get(7) is not None and kind == "LSTM"):
        raise UnsupportedError(f"an {kind} with clip, coupled gates or peepholes")
    if kind == "GRU" and not n.attr("linear_before_reset", 0):
        raise UnsupportedError("a GRU that resets before the product")
    if kind == "RNN" and set(given) == {"Relu"}:
        return "T.rnn_relu"
    if given != DEFAULTS[kind] * ways:
        raise UnsupportedError(f"an {kind} with {', '.join(given)}")
    return FUNCTIONS[kind]


def _check_lengths(n: Node, steps: int) -> None:
    if n.get(4) is not None and not (n.entries(4) == steps).all():
        raise UnsupportedError("sequences of different lengths")


def _state(n: Node, position: int, shape: tuple[int, ...]) -> Symbol:
    given = n.get(position)
    if given is None:
        return known(f"{n.spec.name}.state{position}", np.broadcast_to(np.float32(0), shape))
    return _moved(n, given, (1, 0, 2)) if n.attr("layout", 0) else given


def _weights(n: Node, kind: str, ways: int, hidden: int) -> tuple[list[Symbol], bool]:
    """The weights by direction as torch takes them: input, hidden, and both biases where there are any."""
    found: list[Symbol] = []
    for way in range(ways):
        suffix = "_l0" + ("_reverse" if way else "")
        found += [_part(n, kind, 1, way, f"weight_ih{suffix}"), _part(n, kind, 2, way, f"weight_hh{suffix}")]
        if n.get(3) is not None:
            half = len(GATES[kind]) * hidden
            found += [
                _part(n, kind, 3, way, f"bias_ih{suffix}", (0, half)),
                _part(n, kind, 3, way, f"bias_hh{suffix}", (half, 2 * half)),
            ]
    return found, n.get(3) is not None


def _part(n: Node, kind: str, position: int, way: int, name: str, rows: tuple[int, int] | None = None) -> Symbol:
    """One direction of a stacked weight with its gates in torch's order."""
    whole = n[position]
    stored = whole.stored
    if stored is None:
        raise UnsupportedError(f"an {kind} whose weights are computed")
    part: Array = np.asarray(stored[way])
    part = part if rows is None else part[slice(*rows)]
    gates = np.split(part, len(GATES[kind]))
    array = np.concatenate([gates[gate] for gate in GATES[kind]])
    return Symbol(f"{n.spec.place.path or n.spec.name}.{name}", "param", tuple(array.shape), whole.dtype, array=array)


HANDLERS: Mapping[str, Handler] = dict.fromkeys(GATES, recurrent)
