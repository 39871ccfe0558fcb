"""Reductions over dimensions: means, sums, functions of sums, and the largest entry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from gradlint.signal.field import Cotangent
from gradlint.signal.scalar import affine
from gradlint.signal.site import Flow, Site, Unanswered
from gradlint.signal.stages import Stage, averaged, chained, exact, flow, function
from gradlint.signal.transfer_maximum import windowed
from gradlint.signal.transfer_ratio import CURVED, cosine, curved


def reduce(site: Site) -> Flow:
    """Mean and sum over dimensions, functions of sums, and the largest entry."""
    name = site.op.function
    if name == "cosine_similarity":
        return cosine(site)
    shape = site.field().shape
    given = site.op.attrs.get("dims")
    dims = [int(dim) for dim in given] if isinstance(given, Sequence) else list(range(len(shape)))
    keep = bool(site.op.attrs.get("keepdim", False))
    if name in ("mean", "sum"):
        return flow(site.id("input"), averaged(dims, keep=keep, summed=name == "sum")(site.field()))
    if name in CURVED:
        return curved(site, dims, keep=keep)
    if name in ("max", "amax", "min", "amin"):
        return _extreme(site, dims, least=name in ("min", "amin"))
    raise Unanswered(f"no transfer function for {name}")


def _extreme(site: Site, dims: Sequence[int], *, least: bool) -> Flow:
    """The largest entry along some dimensions; the least is that of −x, negated."""
    source = site.id("input")
    sign = function(affine(-1.0, 0.0))
    turned = sign(site.known(source)) if least else Stage(site.known(source), lambda cotangent: cotangent)
    shape = [1 if dim in dims else size for dim, size in enumerate(turned.field.shape)]
    count = float(math.prod(turned.field.shape[dim] for dim in dims))
    window = windowed(site, source, turned.field, list(dims), shape, count)
    inner = window.outputs[0]
    assert inner is not None

    def back(cotangent: Cotangent) -> Cotangent:
        into = window.backward([cotangent])[source]
        assert isinstance(into, Cotangent)
        return turned.back(into)

    steps = chained(inner, [*([sign] if least else []), lambda x: exact(Stage(x, lambda c: c), site.shape())])
    whole = flow(source, Stage(steps.field, lambda cotangent: back(steps.back(cotangent))))
    return replace(whole, outputs=(*whole.outputs, None)[: len(site.op.outputs)])
