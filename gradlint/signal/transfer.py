"""The table of transfer functions: what each kind of op does to second moments, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

from gradlint.graph import Graph, Op
from gradlint.signal import transfer_complex as of_complex
from gradlint.signal.losses import loss
from gradlint.signal.site import Flow, Site, complex_values
from gradlint.signal.transfer_attention import attention, matmul
from gradlint.signal.transfer_concat import concat, constant
from gradlint.signal.transfer_deconv import conv
from gradlint.signal.transfer_embedding import embedding
from gradlint.signal.transfer_fourier import real, transformed
from gradlint.signal.transfer_linear import linear
from gradlint.signal.transfer_mask import exponential, selected
from gradlint.signal.transfer_merge import add, mul
from gradlint.signal.transfer_norm import norm
from gradlint.signal.transfer_pad import pad
from gradlint.signal.transfer_pair import extreme, glu, running, triangle
from gradlint.signal.transfer_pick import experts
from gradlint.signal.transfer_pointwise import activation, copy, custom, dropout, elementwise
from gradlint.signal.transfer_pool import pool, resize
from gradlint.signal.transfer_ratio import divided
from gradlint.signal.transfer_reduce import reduce
from gradlint.signal.transfer_shape import expand, permute, reshape, slice_, split
from gradlint.signal.transfer_softmax import softmax
from gradlint.signal.transfer_steps import pack, recurrent, unpack
from gradlint.signal.transfer_strided import strided
from gradlint.signal.transfer_unfold import fold
from gradlint.signal.transfer_write import added, scatter, setitem

Transfer = Callable[[Site], Flow]


def by_function(kind: Transfer, others: dict[str, Transfer]) -> Transfer:
    """A transfer function, with others for some functions of the kind."""
    return lambda site: others.get(site.op.function, kind)(site)


TRANSFER: dict[str, Transfer] = {
    "linear": by_function(linear, {"grouped_mm": experts}),
    "conv": conv,
    "matmul": by_function(matmul, {"grouped_mm": experts}),
    "activation": by_function(activation, {"glu": glu}),
    "softmax": softmax,
    "norm": norm,
    "attention": attention,
    "recurrent": recurrent,
    "embedding": embedding,
    "add": by_function(add, dict.fromkeys(("index_add", "scatter_add", "scatter_reduce"), added)),
    "mul": by_function(mul, {"div": divided}),
    "concat": by_function(concat, {"setitem": setitem, "index_put": setitem, "scatter": scatter}),
    "split": split,
    "slice": by_function(slice_, {"pack_padded_sequence": pack, "as_strided": strided}),
    "reshape": reshape,
    "permute": permute,
    "expand": expand,
    "pool": pool,
    "reduce": by_function(reduce, {"cumsum": running}),
    "resize": by_function(resize, {"fold": fold}),
    "pad": by_function(pad, {"pad_packed_sequence": unpack}),
    "dropout": dropout,
    "elementwise": by_function(
        elementwise,
        {
            **dict.fromkeys(("where", "masked_fill"), selected),
            "exp": exponential,
            **dict.fromkeys(("maximum", "minimum"), extreme),
            **dict.fromkeys(("tril", "triu"), triangle),
        },
    ),
    "create": constant,
    "copy": copy,
    "custom": custom,
    "loss": loss,
    "other": transformed,
}

COMPLEX: dict[str, Transfer] = {
    "reshape": of_complex.reshape,
    "permute": of_complex.permute,
    "copy": of_complex.copied,
    "mul": of_complex.multiplied,
    "elementwise": by_function(of_complex.unfollowed, {"real": real}),
    "other": transformed,
}


def transfer_of(graph: Graph, op: Op) -> Transfer | None:
    """The transfer function of an op's kind; an op that takes or gives complex numbers is answered by these alone."""
    if not complex_values(graph).isdisjoint((*op.inputs, *op.outputs)):
        return COMPLEX.get(op.kind, of_complex.unfollowed)
    return TRANSFER.get(op.kind)


RELABELLING: frozenset[str] = frozenset({"reshape", "permute", "expand", "slice", "split", "copy", "concat"})
DERIVATIVE: frozenset[str] = frozenset({"activation", "softmax", "elementwise", "pool"})
WEIGHT: frozenset[str] = frozenset({"linear", "conv", "embedding"})
