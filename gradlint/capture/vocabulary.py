"""What each torch function is: a table from its name to a kind, a canonical function, argument names and attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gradlint.capture.arguments import Arguments
from gradlint.capture.record import Ref
from gradlint.capture.row import Entry
from gradlint.capture.vocabulary_layers import ROWS as LAYERS
from gradlint.capture.vocabulary_tensors import ROWS as TENSORS

ROLES: Mapping[str, str] = {
    "self": "input",
    "mat1": "input",
    "mat2": "other",
    "batch1": "input",
    "batch2": "other",
    "vec": "other",
    "vec2": "other",
    "tensors": "input",
    "operands": "input",
    "input1": "input",
    "input2": "other",
    "attn_mask": "mask",
    "hx": "hidden",
    "source": "other",
    "src": "other",
    "end": "other",
    "values": "other",
    "logits": "input",
    "log_probs": "input",
    "anchor": "input",
    "positive": "other",
    "x1": "input",
    "x2": "other",
}

# by qualified name, or by the last part of it without the underscore of in-place forms; later rows win
TABLE: Mapping[str, Entry] = dict(entry for row in (*LAYERS, *TENSORS) for entry in row.entries())

# the positional arguments of a recurrent network that is given a packed sequence
PACKED = ("input", "batch_sizes", "hx", "params", "has_biases", "num_layers", "dropout", "train", "bidirectional")


def lookup(name: str, short: str) -> Entry | None:
    """The entry of a function: by qualified name, by the last part of it, by that without the in-place underscore."""
    for key in (name, short, short.rstrip("_") if not short.startswith("__") else short):
        entry = TABLE.get(key)
        if entry is not None:
            return entry
    return None


# calls that are something else than their name says, depending on what they are given
OVERLOADS: tuple[tuple[str, Callable[[dict[str, Any]], bool], str], ...] = (
    ("max", lambda given: _is_tensor(given, "dim", "other"), "maximum"),
    ("min", lambda given: _is_tensor(given, "dim", "other"), "minimum"),
    ("pow", lambda given: not _is_tensor(given, "input"), "pow.scalar"),
    ("where", lambda given: not given.keys() & {"input", "other"}, "nonzero"),
    ("div", lambda given: given.get("rounding_mode") is not None, "floor_divide"),
)


def overloaded(entry: Entry, bound: dict[str, Any]) -> Entry:
    """The entry that fits the arguments, where calls of one name differ in kind."""
    for function, holds, other in OVERLOADS:
        if entry.function == function and holds(bound):
            return TABLE[other]
    return entry


def _is_tensor(bound: dict[str, Any], *names: str) -> bool:
    return any(isinstance(bound.get(name), Ref) for name in names)


def role(parameter: str) -> str:
    """The role of a tensor that was given for a parameter; later items of a list are further operands."""
    name, _, rest = parameter.partition(".")
    known = ROLES.get(name, name)
    if not rest:
        return known
    return {"input": "other", "hidden": "cell"}.get(known, f"{known}.{rest}")


def recurrent_weights(count: int, *, biases: bool, bidirectional: bool, layers: int) -> list[str]:
    """Names of a recurrent network's weights in torch's order: weight_ih_l0, weight_hh_l0, bias_ih_l0 …"""
    directions = ("", "_reverse") if bidirectional else ("",)
    kinds = ["weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if biases else ())]
    if count == layers * len(directions) * (len(kinds) + 1):
        kinds.append("weight_hr")  # the projection of an LSTM with proj_size
    return [f"{kind}_l{layer}{way}" for layer in range(layers) for way in directions for kind in kinds]


def bind(parameters: tuple[str, ...], args: Sequence[Any]) -> dict[str, Any]:
    """The positional arguments by name; a last parameter "*dims" takes all that are left, however they were given."""
    bound = dict(zip(parameters, args, strict=False))
    last = parameters[-1]
    if not last.startswith("*"):
        return bound
    rest = tuple(args[len(parameters) - 1 :])
    bound.pop(last, None)
    single = len(rest) == 1 and isinstance(rest[0], (list, tuple)) and not isinstance(rest[0], Ref)
    return bound | ({last[1:]: rest[0] if single else rest} if rest else {})


def attributes(entry: Entry, call: Arguments) -> dict[str, object]:
    """The attributes of a call: its canonical function first."""
    function: dict[str, object] = {"function": entry.function}
    swapped: dict[str, object] = {"reversed": True} if entry.reflected else {}
    return function | entry.extract(call) | swapped
