"""The real part of a discrete Fourier transform: a symmetric map whose rows are as long as its columns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from gradlint.signal import patterns
from gradlint.signal import table as tables
from gradlint.signal.field import Cotangent, Field
from gradlint.signal.patterns import Array
from gradlint.signal.site import Flow, Site, Unanswered
from gradlint.signal.stages import Stage, flow
from gradlint.signal.table import Table

FOURIER = frozenset({"fft", "fft2", "fftn"})


def transformed(site: Site) -> Flow:
    """A transform of which only the real part is read: its numbers are complex, and the flow goes past them."""
    if site.op.function not in FOURIER:
        raise Unanswered(f"no transfer function for {site.op.kind} ({site.op.function or site.op.name})")
    readers = [site.graph.ops[index].function for index in site.graph.values[site.op.outputs[0]].consumers]
    if set(readers) != {"real"}:
        raise Unanswered("a Fourier transform of which more than the real part is read")
    return Flow((None,), lambda cotangents: {})


def real(site: Site) -> Flow:
    """Re F x of the tensor x that a Fourier transform was given."""
    op = site.graph.op_of(site.id("input"))
    if op is None or op.function not in FOURIER or len(op.inputs) != 1:
        raise Unanswered("the real part of numbers that are no Fourier transform")
    if op.attrs.get("s") is not None or op.attrs.get("n") is not None or op.attrs.get("norm") not in (None, "backward"):
        raise Unanswered("a Fourier transform that is cut, padded or scaled")
    source = op.inputs[0]
    x = site.known(source)
    if site.graph.values[source].dtype.startswith("complex"):
        raise Unanswered("a Fourier transform of complex numbers")
    dims = _dims(op.function, op.attrs.get("dim"), len(x.dims))
    return flow(source, _real_part(x, dims), sum(unevenness(x.table, dim) for dim in dims))


def unevenness(table: Table, dim: int) -> float:
    """Decades² by which a norm of each row may be off: what all indices of a dimension have in common is in one row.

    That row has the share W of the energy, of n rows: E[1/s²]E[s²] = 1/(n²W) + (1 − 1/n)²/(1 − W). Where it has less
    than its share, as along features that a norm has centred, no norm is taken of that row alone.
    """
    flat = tables.merge_dim(table.collapse(), dim)
    if not flat.dims[dim] or not flat.square > 0.0:
        return 0.0
    axis = flat.starts[dim]
    size = flat.sizes[axis]
    share = float(patterns.average(flat.values, [axis], flat.sizes).reshape(-1)[-1]) / flat.square
    share = min(max(share, 1.0 / size), 1.0 - 1e-9)
    return (0.5 * math.log10(1.0 / (size**2 * share) + (1.0 - 1.0 / size) ** 2 / (1.0 - share))) ** 2


def _dims(function: str, given: object, rank: int) -> list[int]:
    if isinstance(given, int):
        return [given % rank]
    if isinstance(given, Sequence) and not isinstance(given, str):
        return [int(dim) % rank for dim in given]
    return {"fft": [rank - 1], "fft2": [rank - 2, rank - 1]}.get(function, list(range(rank)))


def _real_part(x: Field, dims: Sequence[int]) -> Stage:
    def mapped(table: Table) -> Table:
        table = table.collapse()
        for dim in dims:
            table = tables.merge_dim(table, dim)
        axes = [axis for dim in dims for axis in table.at(dim)]
        return table.with_values(cosines(table.values, axes, table.sizes))

    def back(cotangent: Cotangent) -> Cotangent:
        return Cotangent(tables.regroup(mapped(tables.regroup(cotangent.table, out.dims)), x.dims))

    out = mapped(x.table)
    return Stage(Field(out, np.array([x.average])), back)


def cosines(values: Array, axes: Sequence[int], sizes: Sequence[int]) -> Array:
    """E[y_k y_k′] of y_k = Σ_a cos(2π Σ_j k_j a_j/n_j) x_a by the axes that k and k′ share, from E[x_a x_a′] by theirs.

    The part of x that depends on the indices in S alone goes to k = 0 along the others, and is seen at k and at −k:
    Σ_a cos(k·a) cos(k′·a) = n/2 (δ(k = k′) + δ(k = −k′)).
    """
    found = np.zeros_like(values)
    for own in _subsets(axes):
        part = _alone(values, axes, own)
        rest = [axis for axis in axes if axis not in own]
        for shared in _subsets(axes):
            if set(rest) <= set(shared):
                seen = 0.5 * (_met(own, shared) + _mirrored(own, shared, sizes))
                found[_at(values, axes, shared)] += math.prod(sizes[axis] for axis in axes) * seen * part
    return found


def _subsets(axes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return itertools.chain.from_iterable(itertools.combinations(axes, size) for size in range(len(axes) + 1))


def _at(values: Array, axes: Sequence[int], shared: Sequence[int]) -> tuple[slice | int, ...]:
    index: list[slice | int] = [slice(None)] * values.ndim
    for axis in axes:
        index[axis + 1] = int(axis in shared)
    return tuple(index)


def _alone(values: Array, axes: Sequence[int], own: Sequence[int]) -> Array:
    """What of E[x x′] the indices in `own` add to what fewer of them explain."""
    parts = [(-1.0) ** (len(own) - len(shared)) * values[_at(values, axes, shared)] for shared in _subsets(own)]
    return np.asarray(sum(parts[1:], start=parts[0]))


def _met(own: Sequence[int], shared: Sequence[int]) -> float:
    """The chance that k = k′ on `own`, for indices that are the same on `shared` and nowhere else."""
    return float(set(own) <= set(shared))


def _mirrored(own: Sequence[int], shared: Sequence[int], sizes: Sequence[int]) -> float:
    """The chance that k = −k′ on `own`: of n indices 2 are their own mirror images where n is even, else 1."""
    chance = 1.0
    for axis in own:
        size, fixed = sizes[axis], 2 - sizes[axis] % 2
        chance *= fixed / size if axis in shared else (size - fixed) / (size * (size - 1.0))
    return chance
