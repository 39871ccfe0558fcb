"""Attribute extractors: from the named arguments of a call to the numbers that rules and the signal need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from gradlint.capture.arguments import Arguments, plain

Attrs = dict[str, Any]
Extract = Callable[[Arguments], Attrs]


def nothing(call: Arguments) -> Attrs:
    """No attributes."""
    return {}


def keep(*names: str, **defaults: Any) -> Extract:
    """Keep arguments under their own names: those listed where they were given, the others with a default."""

    def extract(call: Arguments) -> Attrs:
        found = {name: call.get(name) for name in names if call.given(name)}
        return found | {name: call.get(name, default) for name, default in defaults.items()}

    return extract


def renamed(**sources: tuple[str, Any]) -> Extract:
    """Keep arguments under other names: attribute=(argument, default)."""

    def extract(call: Arguments) -> Attrs:
        return {name: call.get(source, default) for name, (source, default) in sources.items()}

    return extract


def along(name: str = "dim", default: int = 0, extra: int = 0) -> Extract:
    """The dimension an op works along, counted from the front."""

    def extract(call: Arguments) -> Attrs:
        dim = call.get(name, default)
        return {"dim": call.axis(dim, extra) if isinstance(dim, int) else dim}

    return extract


def many(count: int, value: Any, default: Any = 0) -> tuple[Any, ...]:
    """A scalar or sequence argument as one number per spatial dimension."""
    if value is None or value == ():
        value = default
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(value) * count if len(value) == 1 else tuple(value)
    return (value,) * count


def conv(call: Arguments) -> Attrs:
    """Geometry of a convolution; "same" and "valid" padding are resolved to numbers per side."""
    kernel = call.shape("weight")[2:]
    rank = len(kernel)
    dilation = many(rank, call.get("dilation"), 1)
    transposed = "transpose" in call.short or bool(call.get("transposed", False))
    attrs = {
        "kernel": kernel,
        "stride": many(rank, call.get("stride"), 1),
        "padding": _padding(call.get("padding"), kernel, dilation),
        "dilation": dilation,
        "groups": call.get("groups", 1),
        "transposed": transposed,
    }
    return attrs | ({"output_padding": many(rank, call.get("output_padding"), 0)} if transposed else {})


def _padding(given: Any, kernel: Sequence[int], dilation: Sequence[int]) -> tuple[Any, ...]:
    if given == "same":
        return tuple(d * (k - 1) / 2 for k, d in zip(kernel, dilation, strict=True))
    return (0,) * len(kernel) if given == "valid" else many(len(kernel), given, 0)


def pool(call: Arguments) -> Attrs:
    """Geometry of a pooling window; `output_size` for the adaptive ones."""
    rank = next((int(part[0]) for part in call.short.split("pool")[1:] if part[:1].isdigit()), 2)
    attrs: Attrs = {"spatial": rank}
    if "adaptive" in call.short:
        size = many(rank, call.get("output_size"), 1)
        spatial = call.shape()[len(call.shape()) - rank :]
        return attrs | {"output_size": tuple(s if n is None else n for n, s in zip(size, spatial, strict=False))}
    kernel = many(rank, call.get("kernel_size"), 1)
    stride = call.get("stride")
    attrs |= {"kernel": kernel, "stride": kernel if stride in (None, ()) else many(rank, stride)}
    attrs |= {"padding": many(rank, call.get("padding"), 0), "dilation": many(rank, call.get("dilation"), 1)}
    attrs["ceil"] = bool(call.get("ceil_mode", False))
    if "avg" in call.short:
        attrs["count_include_pad"] = call.get("count_include_pad", True)
    return attrs | ({"p": call.get("norm_type")} if call.given("norm_type") else {})


def batch_norm(call: Arguments) -> Attrs:
    """`batch_stats` is whether statistics of the batch are used; `axes` are those they are taken over."""
    statistics = call.get("training", False) or not call.given("running_mean")
    axes = tuple(axis for axis in range(len(call.shape())) if axis != 1)
    return {
        "eps": call.get("eps", 1e-5),
        "momentum": call.get("momentum", 0.1),
        "batch_stats": statistics,
        "axes": axes,
    }


def instance_norm(call: Arguments) -> Attrs:
    """Normalisation per sample and channel."""
    statistics = call.get("use_input_stats", True) or not call.given("running_mean")
    return {"eps": call.get("eps", 1e-5), "batch_stats": statistics, "axes": tuple(range(2, len(call.shape())))}


def layer_norm(call: Arguments) -> Attrs:
    """Normalisation over the last dimensions."""
    count, rank = len(many(1, call.get("normalized_shape"))), len(call.shape())
    return {"eps": call.get("eps") or 1e-5, "axes": tuple(range(rank - count, rank))}


def rms_norm(call: Arguments) -> Attrs:
    """As `layer_norm`; without an eps it is that of the input's dtype."""
    count, rank = len(many(1, call.get("normalized_shape"))), len(call.shape())
    return {"eps": call.get("eps") or 1.2e-7, "axes": tuple(range(rank - count, rank))}


def group_norm(call: Arguments) -> Attrs:
    """Normalisation per sample over the channels of a group and all positions."""
    groups = call.get("num_groups", call.get("group", 1))
    return {"eps": call.get("eps", 1e-5), "groups": groups, "axes": tuple(range(1, len(call.shape())))}


def normalize(call: Arguments) -> Attrs:
    """Division by the p-norm along a dimension."""
    return {"p": call.get("p", 2.0), "eps": call.get("eps", 1e-12), "axes": call.axes(call.get("dim", 1))}


def scalar(call: Arguments) -> Attrs:
    """The second operand where it is a number, `alpha` where it is not 1."""
    other = call.get("other", call.get("input"))
    attrs: Attrs = {"scalar": other} if isinstance(other, (int, float)) else {}
    alpha = call.get("alpha", 1)
    if alpha != 1:
        attrs["alpha"] = alpha
    if call.get("rounding_mode") is not None:
        attrs["rounding_mode"] = call.get("rounding_mode")
    return attrs


def minus_one(call: Arguments) -> Attrs:
    """Negation as a product."""
    return {"scalar": -1.0}


def reduce(call: Arguments) -> Attrs:
    """The dimensions that go (all when none is given), `keepdim`, a norm's order, a variance's correction."""
    dims = call.axes(call.get("dim"))
    attrs: Attrs = {"dims": dims, "keepdim": bool(call.get("keepdim", False))}
    for name in ("p", "ord", "correction", "unbiased", "q"):
        if call.given(name):
            attrs["p" if name == "ord" else name] = call.get(name)
    return attrs


def permutation(call: Arguments) -> Attrs:
    """The full permutation: output dimension i is input dimension dims[i]."""
    rank = len(call.shape())
    order = list(range(rank))
    if call.short == "permute":
        order = [call.axis(int(dim)) for dim in call.get("dims", ())]
    elif call.short in ("movedim", "moveaxis"):
        order = _moved(rank, many(1, call.get("source")), many(1, call.get("destination")))
    elif call.short in ("T", "H", "numpy_T"):
        order.reverse()
    elif rank >= 2:
        a, b = _pair(call, rank)
        order[a], order[b] = order[b], order[a]
    return {"dims": tuple(order)}


def _pair(call: Arguments, rank: int) -> tuple[int, int]:
    if call.short in ("transpose", "swapaxes", "swapdims"):
        first, second = call.get("dim0", call.get("axis0")), call.get("dim1", call.get("axis1"))
        return call.axis(first or 0), call.axis(second or 0)
    return rank - 2, rank - 1


def _moved(rank: int, source: Sequence[int], destination: Sequence[int]) -> list[int]:
    places = {d % rank: s % rank for s, d in zip(source, destination, strict=True)}
    rest = iter([axis for axis in range(rank) if axis not in places.values()])
    return [places[axis] if axis in places else next(rest) for axis in range(rank)]


def repeats(call: Arguments) -> Attrs:
    """How often each dimension of the output repeats the input's."""
    before, after = call.shape(), call.outputs[0].shape
    padded = (1,) * (len(after) - len(before)) + before
    attrs: Attrs = {"repeats": tuple(n // m if m else 1 for n, m in zip(after, padded, strict=False))}
    if call.given("dim"):
        attrs["dim"] = call.axis(call.get("dim")) if isinstance(call.get("dim"), int) else call.get("dim")
    return attrs


def index(call: Arguments) -> Attrs:
    """The index of `x[…]`: numbers, None, "...", ["slice", start, stop, step], "mask" and "tensor"."""
    given = plain(call.values.get("index"))
    return {"index": given if isinstance(given, tuple) and given[:1] != ("slice",) else (given,)}


def selected(call: Arguments) -> Attrs:
    """Selection along one dimension."""
    attrs = along()(call)
    return attrs | keep("index", "start", "end", "length", "step", "k", "shifts", "dims", "offset", "size")(call)


def windowed(call: Arguments) -> Attrs:
    """Windows along one dimension, which torch calls `dimension`."""
    return {"dim": call.axis(int(call.get("dimension", 0)))} | keep("size", "step")(call)


def sections(call: Arguments) -> Attrs:
    """The dimension that is split and the sizes of the parts."""
    dim = call.axis(call.get("dim", 0))
    short = [meta.shape[dim] if dim < len(meta.shape) else 1 for meta in call.outputs]
    return {"dim": dim, "sizes": (1,) * len(short) if call.short == "unbind" else tuple(short)}


def concat(call: Arguments) -> Attrs:
    """The dimension along which the parts lie, counted in the output."""
    rank = len(call.outputs[0].shape)
    fixed = {"hstack": min(1, rank - 1), "column_stack": 1, "vstack": 0, "row_stack": 0, "dstack": 2}
    dim = fixed.get(call.short, call.get("dim", 0))
    return {"dim": dim % rank if rank else 0}


def attention(call: Arguments) -> Attrs:
    """Scale and mask of a scaled dot-product attention."""
    width = call.shape("query")[-1:] or (1,)
    scale = call.get("scale")
    return {
        "causal": bool(call.get("is_causal", False)),
        "masked": call.given("attn_mask"),
        "dropout": call.get("dropout_p", 0.0),
        "scale": scale if scale is not None else width[0] ** -0.5,
        "grouped": bool(call.get("enable_gqa", False)),
    }


def recurrent(call: Arguments) -> Attrs:
    """Layers, directions and sizes of a recurrent network."""
    weights = call.values.get("params") or ()
    gates = {"lstm": 4, "gru": 3}.get(call.short.removesuffix("_cell"), 1)
    first = weights[0].meta if weights else call.tensor("weight_ih_l0")
    rows, columns = first.shape if first is not None else (0, 0)
    return {
        "hidden": rows // gates,
        "inputs": columns,
        "layers": call.get("num_layers", 1),
        "bidirectional": bool(call.get("bidirectional", False)),
        "batch_first": bool(call.get("batch_first", False)),
        "dropout": call.get("dropout", 0.0) if call.get("train", False) else 0.0,
        "biases": bool(call.get("has_biases", call.given("bias_ih_l0"))),
        "packed": call.given("batch_sizes"),
        "cell": call.short.endswith("_cell"),
    }


def embedding(call: Arguments) -> Attrs:
    """Size of the table and what its lookup does beside looking up."""
    shape = call.shape("weight")
    attrs: Attrs = {"count": shape[0] if shape else 0, "width": shape[-1] if shape else 0}
    return attrs | keep("max_norm", "padding_idx", "scale_grad_by_freq", "mode", "sparse")(call)


def addmm(call: Arguments) -> Attrs:
    """Factors of `beta * input + alpha * (a @ b)`."""
    return {"alpha": call.get("alpha", 1), "beta": call.get("beta", 1)}


def flattened(call: Arguments) -> Attrs:
    """The range of dimensions that a flatten joins, or the dimension that an (un)squeeze or unflatten is about."""
    if call.short == "flatten":
        start, end = call.get("start_dim", 0), call.get("end_dim", -1)
        return {"start": call.axis(start), "end": call.axis(end)}
    dim = call.get("dim")
    if not isinstance(dim, int):
        return {} if dim is None else {"dim": dim}
    return {"dim": call.axis(dim, 1 if call.short == "unsqueeze" else 0)}


def dropout(call: Arguments) -> Attrs:
    """Probability, and whether it is applied."""
    training = call.get("training", call.get("train"))
    default = call.short not in ("feature_alpha_dropout", "alpha_dropout")
    return {"p": call.get("p", 0.5), "training": bool(default if training is None else training)}


def resize(call: Arguments) -> Attrs:
    """How much larger each spatial dimension becomes."""
    before, after = call.shape(), call.outputs[0].shape
    spatial = max(len(before) - 2, 0)
    factors = tuple(n / m if m else 1.0 for n, m in zip(after[-spatial:], before[-spatial:], strict=False))
    names = ("mode", "align_corners", "upscale_factor", "downscale_factor", "padding_mode")
    return {"factors": factors if spatial else ()} | keep(*names)(call)


def loss(call: Arguments) -> Attrs:
    """The reduction and the loss's own numbers."""
    names = ("label_smoothing", "ignore_index", "beta", "delta", "margin", "p", "log_target", "log_input", "full")
    return {"reduction": call.get("reduction", "mean")} | keep(*names)(call)


def create(call: Arguments) -> Attrs:
    """The value that a factory fills with, where there is one, and the bounds of a random one."""
    return keep("fill_value", "value", "start", "end", "step", "low", "high", "mean", "std", "p")(call)


def product(shape: Sequence[int]) -> int:
    """Number of entries of a shape."""
    return prod(shape)
