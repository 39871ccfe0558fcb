"""Recurrent networks over a padded batch, over a packed one, and one step of them at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradlint.signal import patterns
from gradlint.signal import table as tables
from gradlint.signal.field import Cotangent, Field
from gradlint.signal.patterns import Array
from gradlint.signal.recurrence import GATES, OTHER, SAME, unroll
from gradlint.signal.recurrence_back import back
from gradlint.signal.site import Contribution, Contributions, Flow, Site, Unanswered
from gradlint.signal.stages import Stage, exact
from gradlint.signal.table import Dims, Table
from gradlint.signal.transfer_recurrent import Clock, Run, gate_weights, gradients, into_inputs, layers
from gradlint.signal.transfer_shape import follow, narrowed, permuted, viewed


def recurrent(site: Site) -> Flow:
    """An RNN, LSTM or GRU, or one step of a cell."""
    attrs = site.op.attrs
    if site.op.function not in GATES or any(role.startswith("weight_hr") for role in site.op.roles):
        raise Unanswered(f"no transfer function for {site.op.function} (projected)")
    if attrs.get("cell"):
        return _cell(site)
    if attrs.get("packed"):
        return _packed(site)
    x = site.field()
    if len(x.dims) != 3:
        raise Unanswered("a recurrent layer without a batch")
    batch, time = (0, 1) if attrs.get("batch_first") else (1, 0)
    found = layers(site, x, Clock(batch, time, x.shape[batch], x.shape[time]))
    source = site.id("input")

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        out = dict(found.backward(cotangents))
        into = out[source]
        assert isinstance(into, Cotangent)
        return out | {source: into.on(x.dims)}

    return Flow(found.outputs, backward)


def _packed(site: Site) -> Flow:
    """A packed batch of sequences of one length holds the entries of step 1, of step 2, …: (T·B, F)."""
    steps, samples = _extent(site)
    source = site.id("input")
    opened = exact(Stage(site.known(source), lambda cotangent: cotangent), (steps, samples, site.field().shape[-1]))
    found = layers(site, opened.field, Clock(1, 0, samples, steps))
    assert found.outputs[0] is not None
    closed = exact(Stage(found.outputs[0], lambda cotangent: cotangent), site.shape())

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        given = cotangents[0]
        out = dict(found.backward([None if given is None else closed.back(given), *cotangents[1:]]))
        into = out[source]
        assert isinstance(into, Cotangent)
        return out | {source: opened.back(into.on(opened.field.dims))}

    return Flow((closed.field, *found.outputs[1:]), backward)


def _extent(site: Site) -> tuple[int, int]:
    """Steps and samples of the packed batch that a recurrent network reads."""
    rows = site.graph.values[site.id("input")].shape[0]
    steps = site.graph.values[site.id("batch_sizes")].shape[0]
    samples = site.graph.values[site.id("hidden")].shape[1]
    if rows != steps * samples:
        raise Unanswered(UNEVEN)
    return steps, samples


UNEVEN = "sequences of different lengths in a packed batch"


def pack(site: Site) -> Flow:
    """A padded batch as a packed one, which holds step 1 of all samples, then step 2, …, up to the longest."""
    shape = site.graph.values[site.id("input")].shape
    steps = site.shape(1)[0]
    batch, time = (0, 1) if site.op.attrs.get("batch_first") else (1, 0)
    if site.shape()[0] != steps * shape[batch]:
        raise Unanswered(UNEVEN)
    order = [time, batch, *range(2, len(shape))]
    return follow(site, [narrowed(time, 0, steps), permuted(order), viewed(site.shape())])


def unpack(site: Site) -> Flow:
    """A packed batch as a padded one."""
    shape = site.shape()
    batch, time = (0, 1) if site.op.attrs.get("batch_first") else (1, 0)
    if site.graph.values[site.id("input")].shape[0] != shape[batch] * shape[time]:
        raise Unanswered(UNEVEN)
    opened = (shape[time], shape[batch], *shape[2:])
    return follow(site, [viewed(opened), permuted([time, batch, *range(2, len(shape))])])


STEPPED = 0.1**2  # decades²: between two calls of a cell only second moments are kept, not what correlates steps


def _cell(site: Site) -> Flow:
    """One step of a recurrence that the model unrolls itself."""
    x, hidden = site.field(), site.field("hidden")
    if len(x.dims) != 2:
        raise Unanswered("a recurrent cell without a batch")
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    weights, fan_in = gate_weights(site, names)
    states = [hidden, site.field("cell")] if site.has("cell") else [hidden]
    start = [_pair(state.table) for state in states]
    inputs, means = (np.array(part).reshape(2, 1, 1) for part in (_pair(x.table), _pair(x.table, feature=0)))
    layer = unroll(site.op.function, inputs - means, means, weights, (start[0], start[-1]))
    run = Run(layer, inputs, names, fan_in, reverse=False)
    clock = Clock(0, 1, x.shape[0], 1)
    after = [layer.hidden[:, 1, 1], layer.cell[:, 1, 1]][: len(site.op.outputs)]
    outputs = [Field(_state_table(hidden.dims, square), np.zeros(1)) for square in after]

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        given = [np.zeros(2) if c is None else _pair(c.on(hidden.dims).table) for c in cotangents]
        last = given[1] if len(given) > 1 else np.zeros(2)
        arriving = given[0].reshape(2, 1, 1)
        returned = [back(layer, sample, arriving[sample], float(last[sample])) for sample in (SAME, OTHER)]
        out: dict[int, Contribution] = {}
        gradients(site, run, returned, clock, out)
        out[site.id("input")] = Cotangent(_state_table(x.dims, into_inputs(run, returned).reshape(2)))
        out[site.id("hidden")] = Cotangent(_state_table(hidden.dims, np.array([r.hidden for r in returned])))
        if site.has("cell"):
            out[site.id("cell")] = Cotangent(_state_table(hidden.dims, np.array([r.cell for r in returned])))
        return out

    return Flow(tuple(outputs), backward, STEPPED)


def _pair(table: Table, feature: int = 1) -> Array:
    """(one sample, two samples) of a table over (batch, feature), for the same or for different features."""
    values = tables.merge_dims(table.collapse()).values
    for dim in range(2):
        if not table.dims[dim]:
            values = patterns.insert(values, dim)
    return np.array([values[0, 1, feature], values[0, 0, feature]])


def _state_table(dims: Dims, squares: Array) -> Table:
    """The table over (batch, feature) with these moments for one sample and two, features independent."""
    values = np.zeros((1, 2, 2))
    values[0, 1, 1], values[0, 0, 1] = squares
    merged_dims = tables.dims_of([int(np.prod([axis.size for axis in dim])) for dim in dims])
    for dim in (1, 0):
        if not merged_dims[dim]:
            values = patterns.take(values, dim, 1)
    return tables.regroup(Table(merged_dims, values), dims)
