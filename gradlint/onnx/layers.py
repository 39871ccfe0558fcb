"""Handlers of what layers are made of: products with weights, norms, pools, softmax, attention, losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from gradlint.onnx.node import Handler, Node, UnknownEntriesError, UnsupportedError, shape_of
from gradlint.onnx.pointwise import _plain
from gradlint.onnx.program import TRAINING, Symbol, known

Window = tuple[list[int], list[int], list[int], list[int]]  # kernel, stride, dilation, pads (begins, then ends)


def conv(n: Node) -> Symbol:
    """A convolution; padding that differs between the sides is a pad of its own."""
    weight = shape_of(n[1])
    rank = len(weight) - 2
    if not 1 <= rank <= 3:
        raise UnsupportedError(f"a convolution over {rank} dimensions")
    _, stride, dilation, pads = _window(n, list(weight[2:]))
    x, padding = _padded(n, n[0], pads, 0.0)
    bias = n.get(2)
    return n.out(f"F.conv{rank}d", x, n[1], bias, tuple(stride), padding, tuple(dilation), n.attr("group", 1))


def conv_transpose(n: Node) -> Symbol:
    """A transposed convolution; what the pads cut off unevenly is cut off afterwards."""
    weight = shape_of(n[1])
    rank = len(weight) - 2
    if not 1 <= rank <= 3:
        raise UnsupportedError(f"a convolution over {rank} dimensions")
    kernel = list(weight[2:])
    stride, dilation = (list(n.attr(name) or [1] * rank) for name in ("strides", "dilations"))
    extra = list(n.attr("output_padding") or [0] * rank)
    pads = list(n.attr("pads") or [0] * 2 * rank)
    spatial = n.shape()[2:]
    wanted = n.attr("output_shape")
    auto = n.attr("auto_pad", "NOTSET")
    if auto.startswith("SAME") and wanted is None:
        wanted = [size * step for size, step in zip(spatial, stride, strict=True)]
    full = [
        (s - 1) * t + (k - 1) * d + 1 + e
        for s, t, k, d, e in zip(spatial, stride, kernel, dilation, extra, strict=True)
    ]
    if wanted is not None:
        cut = [f - w for f, w in zip(full, list(wanted)[-rank:], strict=True)]
        first = [c // 2 if auto == "SAME_UPPER" else c - c // 2 for c in cut]
        pads = first + [c - f for c, f in zip(cut, first, strict=True)]
    arguments = (tuple(stride), tuple(pads[:rank]), tuple(extra), n.attr("group", 1), tuple(dilation))
    if pads[:rank] == pads[rank:] and min(pads, default=0) >= 0:
        return n.out(f"F.conv_transpose{rank}d", n[0], n[1], n.get(2), *arguments)
    channels = weight[1] * n.attr("group", 1)
    shape = (n.shape()[0], channels, *full)
    arguments = (arguments[0], (0,) * rank, *arguments[2:])
    whole = n.step(f"F.conv_transpose{rank}d", n[0], n[1], n.get(2), *arguments, shape=shape, dtype=n[0].dtype)
    return n.out("F.pad", whole, tuple(_reversed([-p for p in pads])))


def _window(n: Node, kernel: list[int]) -> Window:
    rank = len(kernel)
    stride, dilation = (list(n.attr(name) or [1] * rank) for name in ("strides", "dilations"))
    pads = list(n.attr("pads") or [0] * 2 * rank)
    auto = n.attr("auto_pad", "NOTSET")
    if auto == "VALID":
        pads = [0] * 2 * rank
    elif auto.startswith("SAME"):
        missing = [
            max((-(-size // step) - 1) * step + (k - 1) * d + 1 - size, 0)
            for size, step, k, d in zip(n.shape()[2:], stride, kernel, dilation, strict=True)
        ]
        first = [m - m // 2 if auto == "SAME_LOWER" else m // 2 for m in missing]
        pads = first + [m - f for m, f in zip(missing, first, strict=True)]
    return kernel, stride, dilation, pads


def _padded(
    n: Node, x: Symbol, pads: Sequence[int], value: float, most: Sequence[int] | None = None
) -> tuple[Symbol, tuple[int, ...]]:
    """The input, and the padding that is the same on both sides; any other is applied to the input at once."""
    rank = len(pads) // 2
    even = list(pads[:rank]) == list(pads[rank:]) and min(pads, default=0) >= 0
    if even and (most is None or all(p <= m for p, m in zip(pads, most, strict=False))):
        return x, tuple(pads[:rank])
    shape = (
        None
        if x.shape is None
        else (*x.shape[:2], *(s + a + b for s, a, b in zip(x.shape[2:], pads[:rank], pads[rank:], strict=True)))
    )
    fill = () if value == 0.0 else ("constant", value)
    return n.step("F.pad", x, tuple(_reversed(pads)), *fill, shape=shape, dtype=x.dtype), (0,) * rank


def _reversed(pads: Sequence[int]) -> list[int]:
    """Begins and ends as torch's pad takes them: last dimension first, both sides together."""
    rank = len(pads) // 2
    return [pads[axis + side * rank] for axis in reversed(range(rank)) for side in (0, 1)]


def gemm(n: Node) -> Symbol:
    """αAB + βC; what a linear layer exports to is one."""
    a, b, c = n[0], n[1], n.get(2)
    alpha, beta = _plain(n.attr("alpha", 1.0)), _plain(n.attr("beta", 1.0))
    if n.attr("transB", 0) and not n.attr("transA", 0) and alpha == beta == 1.0 and (c is None or c.rank == 1):
        return n.out("F.linear", a, b, c)
    a, b = (_turned(n, x) if n.attr(name, 0) else x for x, name in ((a, "transA"), (b, "transB")))
    if c is None and alpha == 1.0:
        return n.out("T.matmul", a, b)
    shape, dtype = n.results[0]
    product = n.step("T.matmul", a, b, shape=shape, dtype=dtype)
    if alpha != 1.0:
        product = n.like("T.mul", product, alpha) if c is not None else n.out("T.mul", product, alpha)
    if c is None:
        return product
    return n.out("T.add", product, c if beta == 1.0 else n.like("T.mul", c, beta))


def _turned(n: Node, x: Symbol) -> Symbol:
    shape = None if x.shape is None else x.shape[::-1]
    return n.step("T.t", x, shape=shape, dtype=x.dtype)


def matmul(n: Node) -> Symbol:
    """A product of matrices, batched as numpy does."""
    return n.out("T.matmul", n[0], n[1])


def softmax(n: Node) -> Symbol:
    """Before operator set 13 everything from the axis on was one dimension."""
    function = {"Softmax": "F.softmax", "LogSoftmax": "F.log_softmax"}[n.spec.op]
    if n.version >= 13:
        return n.out(function, n[0], n.attr("axis", -1))
    axis = n.axis(n.attr("axis", 1))
    shape = n.shape()
    if prod(shape[axis + 1 :]) == 1:
        return n.out(function, n[0], axis)
    flat = (prod(shape[:axis]), prod(shape[axis:]))
    x = n.step("M.reshape", n[0], flat, shape=flat, dtype=n[0].dtype)
    return n.out("M.reshape", n.like(function, x, 1), shape)


# -- norms -------------------------------------------------------------------------------------------------------------


def batch_norm(n: Node) -> Symbol:
    """Statistics of the batch in train mode, the stored ones else; a single value per channel has no statistics."""
    shape = n.shape()
    several = prod(shape) // max(shape[1], 1) > 1 if len(shape) > 1 else False
    training = bool(n.attr("training_mode", 0)) or (TRAINING if several else False)
    momentum = _plain(1 - n.attr("momentum", 0.9))
    return n.out("F.batch_norm", n[0], n[3], n[4], n[1], n[2], training, momentum, _plain(n.attr("epsilon", 1e-5)))


def instance_norm(n: Node) -> Symbol:
    """Statistics of each sample and channel."""
    return n.out("F.instance_norm", n[0], None, None, n[1], n[2], True, 0.1, _plain(n.attr("epsilon", 1e-5)))


def layer_norm(n: Node) -> Symbol:
    """Over the axes from `axis` on; a weight of another shape than theirs is applied afterwards."""
    return _over_last(n, "F.layer_norm", [n.get(1), n.get(2)])


def rms_norm(n: Node) -> Symbol:
    """As a layer norm, without the mean."""
    return _over_last(n, "F.rms_norm", [n.get(1)])


def _over_last(n: Node, function: str, affine: list[Symbol | None]) -> Symbol:
    shape = n.shape()[n.axis(n.attr("axis", -1)) :]
    epsilon = _plain(n.attr("epsilon", 1e-5))
    if all(symbol is None or symbol.shape == shape for symbol in affine):
        return n.out(function, n[0], shape, *affine, epsilon)
    y = n.like(function, n[0], shape, *(None for _ in affine), epsilon)
    for operation, symbol in zip(("T.mul", "T.add"), affine, strict=False):
        y = y if symbol is None else n.like(operation, y, symbol)
    return y


def group_norm(n: Node) -> Symbol:
    """Before operator set 21 there was one scale for each group."""
    groups, channels = n.attr("num_groups"), n.shape()[1]
    weight, bias = n[1], n[2]
    if shape_of(weight) == (groups,) and groups != channels:
        weight, bias = (
            n.step("T.repeat_interleave", s, channels // groups, shape=(channels,), dtype=s.dtype)
            for s in (weight, bias)
        )
    return n.out("F.group_norm", n[0], groups, weight, bias, _plain(n.attr("epsilon", 1e-5)))


def response_norm(n: Node) -> Symbol:
    """Local response normalisation over an odd number of channels (torch centres an even one elsewhere)."""
    size = n.attr("size")
    if size % 2 == 0:
        raise UnsupportedError("an LRN over an even number of channels")
    return n.out(
        "F.local_response_norm",
        n[0],
        size,
        _plain(n.attr("alpha", 1e-4)),
        _plain(n.attr("beta", 0.75)),
        _plain(n.attr("bias", 1.0)),
    )


def lp_normalization(n: Node) -> Symbol:
    """Division by the p-norm along an axis."""
    return n.out("F.normalize", n[0], float(n.attr("p", 2)), n.attr("axis", -1))


# -- pools -------------------------------------------------------------------------------------------------------------


def max_pool(n: Node) -> Symbol:
    """The largest entry of each window."""
    kernel, stride, dilation, pads = _window(n, list(n.attr("kernel_shape")))
    if n[0].dtype not in FLOATS:
        raise UnsupportedError(f"a pool of {n[0].dtype}")
    x, padding = _padded(n, n[0], pads, float("-inf"), [k // 2 for k in kernel])
    arguments = (tuple(kernel), tuple(stride), padding, tuple(dilation), bool(n.attr("ceil_mode", 0)))
    return n.out(f"F.max_pool{len(kernel)}d", x, *arguments)


def average_pool(n: Node) -> Symbol:
    """The mean of each window, its padding counted or not."""
    kernel, stride, dilation, pads = _window(n, list(n.attr("kernel_shape")))
    if max(dilation) > 1:
        raise UnsupportedError("an AveragePool with dilation")
    included, ceil = bool(n.attr("count_include_pad", 0)), bool(n.attr("ceil_mode", 0))
    function, geometry = f"F.avg_pool{len(kernel)}d", (tuple(kernel), tuple(stride))
    x, padding = _padded(n, n[0], pads, 0.0, [k // 2 for k in kernel])
    if x is n[0]:
        return n.out(function, x, *geometry, padding, ceil, included)
    if included and not ceil:
        return n.out(function, x, *geometry, padding, ceil, True)
    shape, dtype = n.results[0]
    if ceil or shape is None:
        raise UnsupportedError("an AveragePool with uneven padding that does not count, rounded up")
    ones = known(f"{n.spec.name}.ones", np.ones((1, 1, *n.shape()[2:]), np.dtype(dtype)))
    inside, _ = _padded(n, ones, pads, 0.0, [0] * len(kernel))
    total = n.step(function, x, *geometry, padding, shape=shape, dtype=dtype)
    counted = n.step(function, inside, *geometry, padding, shape=(1, 1, *shape[2:]), dtype=dtype)
    return n.out("T.div", total, counted)


FLOATS = ("float16", "float32", "float64", "bfloat16")


def lp_pool(n: Node) -> Symbol:
    """The p-norm of each window."""
    kernel, stride, dilation, pads = _window(n, list(n.attr("kernel_shape")))
    if max(dilation) > 1 or len(kernel) > 3:
        raise UnsupportedError("an LpPool with dilation")
    x, _ = _padded(n, n.like("T.abs", n[0]), pads, 0.0, [0] * len(kernel))
    geometry = (kernel[0], stride[0]) if len(kernel) == 1 else (tuple(kernel), tuple(stride))
    return n.out(f"F.lp_pool{len(kernel)}d", x, float(n.attr("p", 2)), *geometry, bool(n.attr("ceil_mode", 0)))


def global_pool(n: Node) -> Symbol:
    """One value for each channel."""
    rank = n.rank() - 2
    function = {"GlobalAveragePool": "avg", "GlobalMaxPool": "max"}[n.spec.op]
    if not 1 <= rank <= 3:
        dims = tuple(range(2, n.rank()))
        return n.out("T.mean" if function == "avg" else "T.amax", n[0], dims, True)
    return n.out(f"F.adaptive_{function}_pool{rank}d", n[0], (1,) * rank)


def global_lp_pool(n: Node) -> Symbol:
    """The p-norm of each channel."""
    return n.out("L.vector_norm", n[0], float(n.attr("p", 2)), tuple(range(2, n.rank())), True)


# -- the rest ----------------------------------------------------------------------------------------------------------


def attention(n: Node) -> Symbol:
    """Scaled dot-product attention, heads in an axis of their own or side by side."""
    more = set(n.spec.attrs) - {"is_causal", "scale", "q_num_heads", "kv_num_heads", "softcap"}
    mask = n.get(3)
    if more or (mask is not None and mask.rank == 1):
        raise UnsupportedError(f"an Attention with {', '.join(sorted(more)) or 'a mask for one row'}")
    if n.get(4) is not None or n.get(6) is not None or n.attr("softcap", 0.0):
        raise UnsupportedError("an Attention with a cache or softcap")
    query, key, value = n[0], n[1], n[2]
    flat = n.rank() == 3
    if flat:
        heads = [n.attr("q_num_heads"), *[n.attr("kv_num_heads")] * 2]
        query, key, value = (_by_head(n, x, h) for x, h in zip((query, key, value), heads, strict=True))
    grouped = shape_of(query)[1] != shape_of(key)[1]
    extra = {"enable_gqa": True} if grouped else {}
    scale = n.attr("scale")
    if scale is not None:
        extra["scale"] = scale
    arguments = (query, key, value, n.get(3), 0.0, bool(n.attr("is_causal", 0)))
    if not flat:
        return n.out("F.scaled_dot_product_attention", *arguments, **extra)
    b, h, length, width = (*shape_of(query)[:3], shape_of(value)[-1])
    y = n.step("F.scaled_dot_product_attention", *arguments, shape=(b, h, length, width), dtype=query.dtype, **extra)
    y = n.step("M.transpose", y, 1, 2, shape=(b, length, h, width), dtype=y.dtype)
    return n.out("M.reshape", y, (b, length, h * width))


def _by_head(n: Node, x: Symbol, heads: int) -> Symbol:
    b, length, width = shape_of(x)
    split = (b, length, heads, width // heads)
    x = n.step("M.reshape", x, split, shape=split, dtype=x.dtype)
    return n.step("M.transpose", x, 1, 2, shape=(b, heads, length, width // heads), dtype=x.dtype)


def loss(n: Node) -> Symbol:
    """The losses that a training graph holds."""
    function = {"SoftmaxCrossEntropyLoss": "F.cross_entropy", "NegativeLogLikelihoodLoss": "F.nll_loss"}[n.spec.op]
    ignore = n.attr("ignore_index")
    extra = {} if ignore is None else {"ignore_index": ignore}
    return n.out(function, n[0], n[1], n.get(2), reduction=n.attr("reduction", "mean"), **extra)


def dequantize(n: Node) -> Symbol:
    """Stored integers times their scale, along an axis where there are several."""
    scale, zero = n[1], n.get(2)
    if n.attr("block_size", 0):
        raise UnsupportedError("a DequantizeLinear by blocks")
    shape, _ = n.results[0]
    x = n.like("M.to", n[0], _float(n), dtype=scale.dtype)
    if scale.rank == 1 and shape is not None and len(shape) > 1:
        axis = n.axis(n.attr("axis", 1))
        along = tuple(size if i == axis else 1 for i, size in enumerate(shape))
        scale, zero = _along(n, scale, along), None if zero is None else _along(n, zero, along)
    if zero is not None:
        x = n.like("T.sub", x, n.like("M.to", zero, _float(n), dtype=scale.dtype))
    return n.out("T.mul", x, scale)


def _float(n: Node) -> object:
    from gradlint.onnx.program import DType

    return DType(n[1].dtype)


def _along(n: Node, x: Symbol, shape: tuple[int, ...]) -> Symbol:
    if x.data is not None:
        return known(x.name, np.asarray(x.data).reshape(shape))
    if prod(x.shape or ()) != prod(shape):
        raise UnknownEntriesError(x.name)
    return n.step("M.reshape", x, shape, shape=shape, dtype=x.dtype)


HANDLERS: Mapping[str, Handler] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "MatMul": matmul,
    "Softmax": softmax,
    "LogSoftmax": softmax,
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "RMSNormalization": rms_norm,
    "SimplifiedLayerNormalization": rms_norm,
    "GroupNormalization": group_norm,
    "LRN": response_norm,
    "LpNormalization": lp_normalization,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "LpPool": lp_pool,
    "GlobalAveragePool": global_pool,
    "GlobalMaxPool": global_pool,
    "GlobalLpPool": global_lp_pool,
    "Attention": attention,
    "SoftmaxCrossEntropyLoss": loss,
    "NegativeLogLikelihoodLoss": loss,
    "DequantizeLinear": dequantize,
}
