"""Tensors side by side, and tensors made of numbers alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from gradlint.graph import HIDING
from gradlint.signal import layout
from gradlint.signal import table as tables
from gradlint.signal.field import Cotangent, Field, Orthogonal, through, white
from gradlint.signal.site import Contribution, Contributions, Dependent, Flow, Site, Unanswered, credit

PARTS = ("input", "other")  # roles of the operands, the second one numbered where there are more


def concat(site: Site) -> Flow:
    """Parts side by side along one dimension: their moments stay apart as classes of a profile."""
    if site.op.function not in ("cat", "stack"):
        raise Unanswered(f"no transfer function for {site.op.function}")
    values = [v for v, role in zip(site.op.inputs, site.op.roles, strict=True) if role.partition(".")[0] in PARTS]
    values = [value for value in values if 0 not in site.graph.values[value].shape]  # a cache that is still empty
    fields = [site.known(value) for value in values]
    dim = int(site.number("dim", 0))
    stacked = site.op.function == "stack"
    if stacked:
        fields = [field.relabelled(lambda table: layout.unsqueezed(table, dim), ("unsqueeze", dim)) for field in fields]
    kept = [(value, field) for value, field in zip(values, fields, strict=True) if 0 not in field.shape]
    joined = layout.concatenated([field for _, field in kept], dim)
    lengths = [field.shape[dim] for _, field in kept]
    runs = list(zip(itertools.accumulate(lengths, initial=0), lengths, strict=False))
    channels = dim == 1 and not stacked

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        out: dict[int, Contribution] = {}
        parts = layout.parts_of(cotangent.table, dim, runs)
        for (value, _), (start, _), part in zip(kept, runs, parts, strict=True):
            part = tables.squeeze(part, [dim]) if stacked else part
            own = site.known(value)
            given = Cotangent(
                tables.regroup(part, own.dims),
                edges=cotangent.edges if channels else (),
                lean=cotangent.lean,
                orthogonal=_of_channels(cotangent.orthogonal, joined, own, start) if channels else None,
            )
            credit(out, value, given if stacked else _at_part(cotangent, given, joined, own, dim, start))
        return out

    return Flow((joined,), backward)


def _of_channels(orthogonal: Orthogonal | None, joined: Field, part: Field, start: int) -> Orthogonal | None:
    """What Σ δx leaves in every channel, for some of the channels.

    Not for what a weight made: of that a norm evens out the rows as well, which adds what this takes off, and rows side
    by side are not told apart.
    """
    if orthogonal is None or orthogonal.source != joined.source or part.rows is not None:
        return None
    rest = orthogonal.rest
    own = rest if len(rest) == 1 else rest[start : start + part.shape[1]]
    return Orthogonal(part.source, own, orthogonal.share, orthogonal.level)


def _at_part(cotangent: Cotangent, given: Cotangent, joined: Field, part: Field, dim: int, start: int) -> Cotangent:
    """What the gradient of one part went through of the Gaussian under all parts: the same function of its own one."""
    factor, law = cotangent.factor, part.law
    if factor is None or factor.partial or factor.base.source != joined.law.source or part.table.profile is not None:
        return given
    independent = layout.restricted(factor.independent, dim, start, part.shape[dim])
    if independent.dims != part.dims or law.table.dims != part.dims:
        return given
    return through(law, independent, factor.function, edges=given.edges, lean=given.lean, orthogonal=given.orthogonal)


def constant(site: Site) -> Flow:
    """zeros, ones, full: one number everywhere; random factories are white. Their entries have no gradient."""
    dtype = site.graph.values[site.op.outputs[0]].dtype
    drawn = CREATED.get(site.op.function)
    if dtype.startswith(("int", "bool", "uint")) or 0 in site.shape():
        raise Dependent("no numbers that a gradient could depend on")
    if drawn is None:
        raise Unanswered(f"no transfer function for {site.op.function}")
    mean, deviation = drawn(site)
    return Flow((white(tables.dims_of(site.shape(), batch=0), mean, deviation),), lambda cotangents: {})


def _filled(site: Site) -> tuple[float, float]:
    value = site.op.attrs.get("fill_value", site.op.attrs.get("value"))
    if not isinstance(value, int | float) or not -HIDING < value < math.inf:
        raise Dependent("filled with a number that is not known, or stands for minus infinity")
    return float(value), 0.0


def _coin(site: Site) -> tuple[float, float]:
    p = site.op.attrs.get("p")
    if not isinstance(p, int | float):
        raise Unanswered("coin tosses of unknown probability")
    return float(p), math.sqrt(p * (1.0 - p))


CREATED: dict[str, Callable[[Site], tuple[float, float]]] = {
    "zeros": lambda site: (0.0, 0.0),
    "empty": lambda site: (0.0, 0.0),  # whatever it is, it is there to be overwritten
    "ones": lambda site: (1.0, 0.0),
    "full": _filled,
    "full_like": _filled,
    "fill": _filled,
    "bernoulli": _coin,
    "rand": lambda site: (0.5, math.sqrt(1.0 / 12.0)),
    "randn": lambda site: (site.number("mean", 0.0), site.number("std", 1.0)),
}
