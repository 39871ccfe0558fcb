"""The table of transfer functions: what each kind of op does to second moments, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

from gradlint.signal.losses import loss
from gradlint.signal.site import Flow, Site
from gradlint.signal.transfer_attention import attention, matmul, softmax
from gradlint.signal.transfer_deconv import conv
from gradlint.signal.transfer_embedding import embedding
from gradlint.signal.transfer_linear import linear
from gradlint.signal.transfer_merge import add, concat, constant, mul
from gradlint.signal.transfer_norm import norm
from gradlint.signal.transfer_pointwise import activation, copy, dropout, elementwise
from gradlint.signal.transfer_pool import pad, pool, reduce, resize
from gradlint.signal.transfer_recurrent import recurrent
from gradlint.signal.transfer_shape import expand, permute, reshape, slice_, split

Transfer = Callable[[Site], Flow]

TRANSFER: dict[str, Transfer] = {
    "linear": linear,
    "conv": conv,
    "matmul": matmul,
    "activation": activation,
    "softmax": softmax,
    "norm": norm,
    "attention": attention,
    "recurrent": recurrent,
    "embedding": embedding,
    "add": add,
    "mul": mul,
    "concat": concat,
    "split": split,
    "slice": slice_,
    "reshape": reshape,
    "permute": permute,
    "expand": expand,
    "pool": pool,
    "reduce": reduce,
    "resize": resize,
    "pad": pad,
    "dropout": dropout,
    "elementwise": elementwise,
    "create": constant,
    "copy": copy,
    "loss": loss,
}

RELABELLING: frozenset[str] = frozenset({"reshape", "permute", "expand", "slice", "split", "copy", "concat"})
DERIVATIVE: frozenset[str] = frozenset({"activation", "softmax", "elementwise", "pool"})
WEIGHT: frozenset[str] = frozenset({"linear", "conv", "embedding"})
