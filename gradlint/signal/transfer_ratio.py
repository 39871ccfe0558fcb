"""Quotients of tensors, and reductions that are not linear: norms, deviations, the logarithm of a sum."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from gradlint.signal import table as tables
from gradlint.signal.doubt import DECADE
from gradlint.signal.field import Cotangent, Field, white
from gradlint.signal.scalar import Scalar, affine, scalar_function
from gradlint.signal.site import Contribution, Contributions, Flow, Site, Unanswered, credit, shaped
from gradlint.signal.stages import EXP, Stage, Step, averaged, centred, chained, exact, flow, function, positive
from gradlint.signal.transfer_merge import independent_product, mul
from gradlint.signal.weighted_mean import common_scale
from gradlint.signal.weights import field_of
from gradlint.signal.written_norm import written

SQUARE = Scalar("x²", lambda z: z * z, lambda z: 2.0 * z)
RECIPROCAL = Scalar("1/x", lambda z: 1.0 / z, lambda z: -1.0 / (z * z))


def root(power: float) -> Scalar:
    """x to a power, for x > 0."""
    found = scalar_function("pow", {"exponent": power})
    assert found is not None
    return found


def divided(site: Site) -> Flow:
    """x/y of two tensors; by a number, or where the two are a norm that is written out, it is a product."""
    tensors = site.has("other") and site.has("input")
    return quotient(site) if tensors and written(site.graph, site.op) is None else mul(site)


def quotient(site: Site) -> Flow:
    """x/y = x·(1/y) of independent x and y > 0.

    What x and y share changes E[x²/y²] by no more than the relative variance of y: that is added to what may be off.
    Where both are products with one tensor its scale cancels, and E[x²/y²] = E[x²]/E[y²] of a y that varies with it.
    """
    first, second = site.id("input"), site.id("other")
    x, y = site.known(first), site.known(second)
    known = _known_inverse(site, second)
    if known is not None:
        below = Stage(known, lambda cotangent: Cotangent(tables.constant(y.dims, 0.0)))
    else:
        below = _at_one_scale(y) if common_scale(site.graph, first, second) else inverse(y)
    product = independent_product(first, _INVERSE, x, below.field)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        given = dict(product.backward(cotangents))
        into = given.pop(_INVERSE, None)
        if isinstance(into, Cotangent):
            back = below.back(into)
            credit(given, second, back)
        return given

    relative = min(y.variance / y.average**2, 1.0)
    doubt = (2.0 * DECADE * relative) ** 2
    return Flow(product.outputs, backward, doubt, doubt)


def inverse(y: Field) -> Stage:
    """1/y, for a y that surely is positive or surely negative."""
    sign = -1.0 if y.average < 0.0 else 1.0
    return chained(y, [function(affine(sign, 0.0)), positive, function(RECIPROCAL), function(affine(sign, 0.0))])


def _known_inverse(site: Site, value: int) -> Field | None:
    """1/y entry by entry, of a y that was there; what was fed in changes none of it."""
    fixed = site.graph.fixed.get(value)
    numbers = None if fixed is None else fixed.inverse
    return None if numbers is None else shaped(field_of(numbers), site.graph.values[value].shape)


def _at_one_scale(y: Field) -> Stage:
    """1/y where y is as large as it is on average: 1/√E[y²], whose slope is −1/E[y²]."""
    positive(y)
    square = y.table.square
    level = math.copysign(1.0 / math.sqrt(square), y.average)
    field = white(y.dims, level, 0.0)
    return Stage(field, lambda cotangent: Cotangent(cotangent.table.scaled(1.0 / square**2)))


_INVERSE = -1  # stands for 1/y inside the op


def curved(site: Site, dims: Sequence[int], *, keep: bool) -> Flow:
    """A reduction that is a function of a sum of functions."""
    builder = CURVED[site.op.function]
    x = site.field()
    stage = exact(chained(x, builder(site, x, dims, keep=keep)), site.shape())
    return flow(site.id("input"), stage)


def _norm(site: Site, x: Field, dims: Sequence[int], *, keep: bool) -> list[Step]:
    order = site.op.attrs.get("p", 2.0)
    order = 2.0 if order in (None, "fro") else order
    if not isinstance(order, int | float) or not 0.0 < order < math.inf:
        raise Unanswered(f"a norm of order {order}")
    inner = SQUARE if order == 2 else Scalar(f"|x|^{order:g}", lambda z: np.abs(z) ** order, _slope(float(order)))
    return [function(inner), averaged(dims, keep=keep, summed=True), positive, function(root(1.0 / order))]


def _slope(order: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda z: order * np.sign(z) * np.abs(z) ** (order - 1.0)


def _variance(site: Site, x: Field, dims: Sequence[int], *, keep: bool) -> list[Step]:
    count = math.prod(x.shape[dim] for dim in dims)
    given = site.op.attrs.get("correction", site.op.attrs.get("unbiased", True))
    correction = float(given) if isinstance(given, int | float) else 1.0
    steps = [
        centred(dims),
        function(SQUARE),
        averaged(dims, keep=keep),
        function(affine(count / (count - correction), 0)),
    ]
    return steps if site.op.function == "var" else [*steps, positive, function(root(0.5))]


def _log_sum(site: Site, x: Field, dims: Sequence[int], *, keep: bool) -> list[Step]:
    log = scalar_function("log", {})
    assert log is not None
    return [function(EXP), averaged(dims, keep=keep, summed=True), positive, function(log)]


CURVED: dict[str, Callable[..., list[Step]]] = {
    "norm": _norm,
    "var": _variance,
    "std": _variance,
    "logsumexp": _log_sum,
}


def cosine(site: Site) -> Flow:
    """Σ x̂ŷ of two tensors that are each brought to length 1 along one dimension."""
    first, second = site.id("input"), site.id("other")
    x, y = site.known(first), site.known(second)
    if x.shape != y.shape:
        raise Unanswered("the cosine of tensors of different shapes")
    given = site.op.attrs.get("dim", 1)
    dim = (given if isinstance(given, int) else 1) % len(x.dims)
    sides = [_lengthened(x, dim), _lengthened(y, dim)]
    product = independent_product(-1, -2, sides[0].field, sides[1].field)
    inner = product.outputs[0]
    assert inner is not None
    summed = exact(averaged([dim], keep=False, summed=True)(inner), site.shape())

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        parts = product.backward([summed.back(cotangent)])
        found: dict[int, Contribution] = {}
        for place, (value, side) in enumerate(zip((first, second), sides, strict=True)):
            part = parts[-1 - place]
            assert isinstance(part, Cotangent)
            back = side.back(part)
            credit(found, value, back)
        return found

    return Flow((summed.field,), backward)


def _lengthened(x: Field, dim: int) -> Stage:
    """x over its root mean square along a dimension; what the gradient has along x is 1/n of it and left in."""
    square = x.table.square * x.shape[dim]
    return function(affine(1.0 / math.sqrt(max(square, 1e-300)), 0.0))(x)
