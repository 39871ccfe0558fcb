"""The intermediate representation: operations, values, parameters and modules of one recorded run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

KINDS: tuple[str, ...] = (
    "linear",  # y = x Wᵀ + b (F.linear, addmm with a parameter)
    "conv",  # all convolutions; attrs: stride, padding, dilation, groups, transposed, kernel
    "matmul",  # product of two activations
    "activation",  # attrs: function, and its parameters (slope, alpha, approximate …)
    "softmax",  # attrs: function (softmax, log_softmax, softmin), dim
    "norm",  # attrs: function (batch_norm, layer_norm, group_norm, instance_norm, rms_norm …), eps, groups, axes
    "attention",  # scaled_dot_product_attention; attrs: causal, masked, dropout, scale
    "recurrent",  # attrs: function (rnn_tanh, rnn_relu, lstm, gru), hidden, layers, bidirectional, batch_first
    "embedding",
    "add",  # sum or difference of tensors, or with a scalar; attrs: function (add, sub), alpha, scalar
    "mul",  # product or quotient of tensors, or with a scalar; attrs: function (mul, div), scalar
    "concat",  # attrs: function (cat, stack), dim
    "split",  # chunk, split, unbind, tensor_split; attrs: dim
    "slice",  # indexing that keeps values; attrs: index where static
    "reshape",  # view, flatten, squeeze, unsqueeze …
    "permute",  # transpose, permute, movedim; attrs: dims
    "expand",  # broadcast without new values: expand, repeat, repeat_interleave
    "pool",  # attrs: function (max, avg, adaptive_avg, adaptive_max, lp), kernel, stride, padding
    "reduce",  # mean, sum, max, var, norm … over axes; attrs: function, dims, keepdim
    "resize",  # interpolate, pixel_shuffle, upsample
    "pad",
    "dropout",  # attrs: p, training
    "elementwise",  # pointwise and not an activation: exp, log, sqrt, pow, abs, clamp …; attrs: function
    "compare",  # results without a gradient: ==, argmax, masks; attrs: function
    "create",  # arange, zeros, randn: a value that depends on no other
    "copy",  # the same numbers again: contiguous, clone, to, detach (attrs: function)
    "loss",
    "custom",  # a user's autograd.Function; attrs: function (its qualified name)
    "other",
)

Origin = Literal["op", "input", "param", "buffer", "constant"]


@dataclass(frozen=True)
class Span:
    """A place in a user's file: `path` as given, 1-based `line`, 0-based `column` (0 when unknown)."""

    path: str
    line: int
    column: int = 0


@dataclass(frozen=True)
class Value:
    """One tensor. In-place operations make a new Value (static single assignment)."""

    id: int
    shape: tuple[int, ...]
    dtype: str  # torch's name without the prefix: "float32", "int64"
    origin: Origin
    name: str = ""  # parameter or buffer path, or the input's name
    producer: int | None = None  # op index
    consumers: tuple[int, ...] = ()
    requires_grad: bool = False  # whether a gradient flows back to this tensor


@dataclass(frozen=True)
class Op:
    """One torch-level call.

    `inputs` are the value ids of every tensor argument, parameters included, and `roles` says what each one is for:
    "input" (first data operand), "other" (second operand), "weight", "bias", "query", "key", "value", "mask", "target",
    "running_mean", "running_var", "hidden", "cell", or the argument's own name.
    `index` is the position in `Graph.ops` and, for a recorded run, the number the recorder gave the call, by which a
    replay finds it again.
    """

    index: int
    kind: str
    name: str  # qualified torch name: "torch.nn.functional.relu"
    inputs: tuple[int, ...]
    roles: tuple[str, ...]
    outputs: tuple[int, ...]
    params: tuple[str, ...] = ()  # paths of the inputs that are parameters
    module_path: str = ""  # innermost module being called, "" for the root
    module_type: str = ""
    span: Span | None = None  # the user's line that made the call
    constructed: Span | None = None  # the user's line that constructed the module
    attrs: Mapping[str, object] = field(default_factory=dict)
    inplace: bool = False
    grad_enabled: bool = True

    @property
    def function(self) -> str:
        """The canonical function within the kind ("sigmoid", "batch_norm", "add"), or "" when the kind says all."""
        return str(self.attrs.get("function", ""))


@dataclass(frozen=True)
class Param:
    """Statistics of one parameter; `mean` … `zero_share` are None on meta tensors.

    `moments` are the second moments of the weight that the signal needs (see `gradlint.capture.statistics`).
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    requires_grad: bool
    fan_in: int
    fan_out: int
    mean: float | None = None
    std: float | None = None
    rms: float | None = None
    abs_max: float | None = None
    zero_share: float | None = None
    finite: bool = True
    shared_by: tuple[str, ...] = ()  # further paths of the same tensor (weight tying)
    constructed: Span | None = None
    moments: Mapping[str, object] = field(default_factory=dict)


HIDING = 1e3  # magnitude of a number that stands for minus infinity: what is added to logits to hide them


@dataclass(frozen=True)
class Fixed:
    """A value that depends on nothing that was fed in, as it was in the recorded run.

    `numbers` are its entries' statistics as of a parameter; of integers, `moments["sums"]` counts equal pairs, and of
    complex numbers c they are those of Re c ± Im c along a last axis (see `gradlint.capture.fixed`). For a value
    that is computed from parameters, `responses[path][S]` is the mean square of a parameter's gradient when the value's
    has independent unit entries along the axes in S (as digits) and is constant along the others. `inverse` are the
    statistics of 1/entry, of a tensor that another one is divided by.
    """

    numbers: Param
    responses: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    inverse: Param | None = None


@dataclass(frozen=True)
class Module:
    """One module of the tree; `called` counts its calls in the recorded run."""

    path: str
    type: str
    called: int = 0
    params: tuple[str, ...] = ()  # own parameters, not the children's
    constructed: Span | None = None
    builtin: bool = False  # defined by torch itself
    registered: bool = True  # False: called during the run but not in the model's module tree


@dataclass(frozen=True)
class Coverage:
    """What was understood: the number of ops, and for each one without a kind its name and count."""

    method: str  # "recorded", "recorded-meta", "fx", "onnx", "torchscript"
    ops: int = 0
    unknown: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()  # answered scalars, modules not reached …
    absent: tuple[str, ...] = ()  # kinds of ops that an exporter took out of the network: "norm"


@dataclass(frozen=True)
class Graph:
    """A recorded run in execution (= topological) order. `gradlint.graph.verify` states its invariants."""

    ops: tuple[Op, ...]
    values: tuple[Value, ...]  # values[i].id == i
    params: Mapping[str, Param]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    modules: tuple[Module, ...] = ()
    coverage: Coverage = Coverage(method="recorded")
    output_names: tuple[str, ...] = ()
    training: bool = True
    reads: frozenset[int] = (
        frozenset()
    )  # values that Python read as numbers, `x.item()`, although a gradient was theirs
    fixed: Mapping[int, Fixed] = field(default_factory=dict)  # by value id: what need not be predicted
    seen: Mapping[int, Param] = field(
        default_factory=dict
    )  # what depends on data and carries no gradient, as it was where an op read it: masks, targets, positions

    def op_of(self, value: int) -> Op | None:
        """The op that produced the value, or None for an input, parameter, buffer or constant."""
        producer = self.values[value].producer
        return None if producer is None else self.ops[producer]

    def data_inputs(self, op: Op) -> tuple[int, ...]:
        """Value ids of the op's activations: its inputs that are neither parameters, buffers nor constants."""
        return tuple([v for v in op.inputs if self.values[v].origin in ("op", "input")])

    def operand(self, op: Op, role: str) -> Value | None:
        """The value that the op takes in this role, or None."""
        return self.values[op.inputs[op.roles.index(role)]] if role in op.roles else None

    def param(self, op: Op, role: str = "weight") -> Param | None:
        """The parameter that the op takes in this role, or None when it is absent or computed by another op."""
        value = self.operand(op, role)
        if value is None or value.origin != "param":
            return None
        return self.params.get(value.name)
