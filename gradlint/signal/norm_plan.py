"""Which axes a normalisation layer centres and divides over, and which its gain runs along."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from gradlint.signal import table as tables
from gradlint.signal.channels import gains_of
from gradlint.signal.field import Field
from gradlint.signal.patterns import Array
from gradlint.signal.samples import by_sample
from gradlint.signal.site import Site, Unanswered
from gradlint.signal.weights import Vector


@dataclass(frozen=True, eq=False)
class Plan:
    """What a norm does to its (possibly split) input: axes it normalises over, axes its gain runs along."""

    x: Field
    over: tuple[int, ...]
    along: tuple[int, ...]
    eps: float
    gain: Vector | None
    bias: Vector | None
    centred: bool
    scale: float = 1.0  # E[x̂²] of the output

    @cached_property
    def unequal(self) -> bool:
        """Whether samples of unequal energy are normalised over together."""
        return by_sample(self.x.table) and self.x.table.profile is not None and self.x.table.profile.axis in self.over

    @cached_property
    def others(self) -> tuple[int, ...]:
        """Axes that are not normalised over."""
        return tuple([axis for axis in range(len(self.x.table.axes)) if axis not in self.over])

    @cached_property
    def by_channel(self) -> bool:
        """Whether the norm leaves a sample's energy against others' as it is."""
        return any(self.x.table.axes[axis].batch for axis in self.over)

    @cached_property
    def gains(self) -> Array | None:
        """The gains of a norm with one for every channel that it normalises, where they are known and vary."""
        if not self.centred or len(self.along) != 1 or self.along[0] in self.over:
            return None
        return gains_of(self.gain, self.x.table.sizes[self.along[0]])


def planned(site: Site) -> Plan:
    """The plan of a norm of the vocabulary. Raises Unanswered for one that is unknown or divides by what is not."""
    planner = PLANS.get(site.op.function)
    if planner is None:
        raise Unanswered(f"no transfer function for {site.op.function}")
    if site.op.attrs.get("batch_stats") is False:
        raise Unanswered("running statistics are not known")
    return planner(site)


def _batch(site: Site) -> Plan:
    x = site.field()
    over = tuple(axis for dim in range(len(x.dims)) if dim != 1 for axis in x.table.at(dim))
    return _plan(site, x, over, tuple(x.table.at(1)))


def _instance(site: Site) -> Plan:
    x = site.field()
    over = tuple(axis for dim in range(2, len(x.dims)) for axis in x.table.at(dim))
    return _plan(site, x, over, tuple(x.table.at(1)))


def _group(site: Site) -> Plan:
    x = merged(site.field())
    groups, channels = int(site.number("groups", 1)), x.shape[1]
    position = x.table.starts[1]
    if groups > 1 and groups < channels:
        sizes = [groups, channels // groups]
        x = x.relabelled(lambda table: tables.split_axis(table, position, sizes), ("split", position, groups))
    along = tuple(x.table.at(1))
    inside = along[1:] if 1 < groups < channels else () if groups >= channels else along
    over = tuple(inside) + tuple(axis for dim in range(2, len(x.dims)) for axis in x.table.at(dim))
    return _plan(site, x, over, along)


def _layer(site: Site) -> Plan:
    x = site.field()
    over = normalised_axes(site, x)
    return _plan(site, x, over, over)


def normalised_axes(site: Site, x: Field) -> tuple[int, ...]:
    """The axes that a layer norm normalises over; none where it is given one entry at a time."""
    axes = site.op.attrs.get("axes")
    dims = [int(dim) for dim in axes] if isinstance(axes, Sequence) else [len(x.dims) - 1]
    return tuple(axis for dim in dims for axis in x.table.at(dim))


def _rms(site: Site) -> Plan:
    plan = _layer(site)
    return Plan(plan.x, plan.over, plan.along, plan.eps, plan.gain, plan.bias, centred=False)


def _normalize(site: Site) -> Plan:
    if site.number("p", 2.0) != 2.0:
        raise Unanswered(f"normalize with p = {site.number('p', 2.0)}")
    plan = _layer(site)
    count = math.prod(plan.x.table.sizes[axis] for axis in plan.over)
    return Plan(plan.x, plan.over, plan.along, 0.0, None, None, centred=False, scale=1.0 / count)


def _plan(site: Site, x: Field, over: tuple[int, ...], along: tuple[int, ...]) -> Plan:
    if x.table.profile is not None and x.table.profile.axis in over and not by_sample(x.table):
        x = x.collapse()
    if not over:
        raise Unanswered("a norm over a single entry")
    return Plan(x, over, along, site.number("eps", 1e-5), site.vector("weight"), site.vector("bias"), centred=True)


def merged(x: Field) -> Field:
    """Every dimension as at most one axis."""
    if all(len(axes) < 2 for axes in x.dims):
        return x
    return x.relabelled(tables.merge_dims, "merged")


PLANS: dict[str, Callable[[Site], Plan]] = {
    "batch_norm": _batch,
    "instance_norm": _instance,
    "group_norm": _group,
    "layer_norm": _layer,
    "rms_norm": _rms,
    "normalize": _normalize,
}
