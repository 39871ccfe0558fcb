"""Softmax and layer norm over one entry, which give a number whatever they are given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradlint.signal import patterns
from gradlint.signal.field import Cotangent, none, white
from gradlint.signal.site import Contribution, Contributions, Flow, Site, Square


def certain(site: Site, level: float) -> Flow:
    """One number everywhere, which nothing that is fed in changes."""
    value = site.id("input")
    x = site.known(value)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        return {} if cotangents[0] is None else {value: none(x.shape).on(x.dims)}

    return Flow((white(x.dims, level, 0.0),), backward)


def biased(site: Site) -> Flow:
    """A layer norm of x − x: its bias."""
    bias = site.vector("bias")
    found = certain(site, 0.0 if bias is None else bias.mean)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        out: dict[int, Contribution] = dict(found.backward(cotangents))
        table = cotangent.table.collapse()
        summed = float(patterns.pair_sum(table.values, range(len(table.axes)), table.sizes).sum())
        magnitude = float(patterns.pair_sum(np.abs(table.values), range(len(table.axes)), table.sizes).sum())
        if site.has("weight"):
            out[site.id("weight")] = Square(0.0, magnitude)
        if site.has("bias"):
            out[site.id("bias")] = Square(summed, magnitude)
        return out

    return Flow(found.outputs, backward)
