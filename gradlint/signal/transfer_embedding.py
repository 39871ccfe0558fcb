"""Embeddings: rows of a table picked by random tokens, or by positions that are the same for every sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradlint.signal import table as tables
from gradlint.signal.field import Cotangent, Field
from gradlint.signal.site import Contributions, Flow, Site, Square, Unanswered
from gradlint.signal.table import Axis, Table
from gradlint.signal.weights import Weight


def embedding(site: Site) -> Flow:
    """y[i…, c] = W[token_i, c]; two indices meet the same row with the probability their labels say."""
    if site.op.attrs.get("mode") is not None:
        raise Unanswered("embedding_bag")
    weight = site.weight("weight")
    labels = site.labels("input", weight.shape[0])
    return lookup(site, weight, labels)


def lookup(site: Site, weight: Weight, labels: Table) -> Flow:
    """Rows of a matrix by labels: `labels` is the table of probabilities that two entries are equal."""
    rows, width = weight.shape
    square, by_row, by_column, total = (weight.sums[key] for key in ("01", "0", "1", ""))
    hit_same = square / (rows * width)
    hit_other = (by_row - square) / max(rows * width * (width - 1), 1)
    miss_same = (by_column - square) / max(rows * (rows - 1) * width, 1)
    miss_other = (total - by_row - by_column + square) / max(rows * (rows - 1) * width * (width - 1), 1)
    equal = labels.values
    same = equal * hit_same + (1.0 - equal) * miss_same
    other = equal * hit_other + (1.0 - equal) * miss_other
    axis = len(labels.axes)
    values = tables.put(axis, same, other) if width > 1 else same
    out = Table((*labels.dims, (Axis(width),) if width > 1 else ()), values)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        value = site.value("weight")
        if cotangent is None or value is None or not value.requires_grad:
            return {}
        given = tables.regroup(cotangent.table, out.dims).collapse()
        own = tables.take(given.values, axis, 1) if width > 1 else given.values
        meeting = own * equal / rows
        order = range(len(labels.axes))
        summed = float(tables.pair_sum(meeting, order, labels.sizes).sum())
        return {value.id: Square(summed, float(tables.pair_sum(np.abs(meeting), order, labels.sizes).sum()))}

    return Flow((Field(out, np.array([weight.total / (rows * width)])),), backward)
