"""Zero padding: positions close to each other read what is inside of a map alike, and have more in common than others.

Without a norm, most of what two positions have in common is what all have, of which a filter at the edge reads less. A
matrix of E[z(p)z(q)] for every spatial axis follows it, of the Gaussian z that the entries are a function of.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from gradlint.signal.edges import Near, along, evened, joined, two_apart
from gradlint.signal.field import Base, Field
from gradlint.signal.kernels import kernel
from gradlint.signal.patterns import Array
from gradlint.signal.windows import Window

LONGEST = 128  # positions along an axis beyond which what falls off at its ends is little
STEP = 1.02  # ratio of two correlations between which a slope is taken


def read_together(x: Field, windows: Sequence[Window]) -> tuple[list[float], Near]:
    """What falls on two positions of a convolution's output by axis, where that is known, and its matrices."""
    if any(window.size > LONGEST for window in windows):
        return [], ()
    if tuple(len(matrix) for matrix in x.near) != tuple(window.size for window in windows):
        return [], tuple(window.alike for window in windows)
    power = 1.0 if x.base is None else _slope(x.law)
    met = along(lambda window, matrix: window.together(matrix**power), windows, x.near)
    return [*map(two_apart, met)], tuple(along(evened, met))


def _slope(law: Base) -> float:
    """d ln E[f(z)f(z′)]/d ln ρ at the mean correlation of two positions of one sample and channel.

    E[f(z)f(z′)] grows with this power of E[zz′], to first order about the mean.
    """
    far = 0.0 if law.table.profile is not None else float(_patterns(law).reshape(-1)[0])
    rho = far / max(float(law.variance[0]), 1e-300)
    if not 0.0 < rho < 1.0 / STEP:
        return 1.0
    values, _ = kernel(law.function, law.mean, law.variance, np.array([[rho, rho * STEP]]))
    first, second = values.reshape(-1)
    return math.log(second / first) / math.log(STEP) if first > 0.0 and second > 0.0 else 1.0


def _patterns(law: Base) -> Array:
    """Covariance of z by the spatial axes that two entries of one sample and channel share, (2, …, 2)."""
    table = law.table
    covariance = table.values[0] - float(law.mean[0]) ** 2
    index = [slice(None) if axis >= table.starts[2] else 1 for axis in range(len(table.axes))]
    found: Array = covariance[tuple(index)]
    return found


def closeness(x: Field, windows: Sequence[Window]) -> float:
    """Share of what two positions do not have in common that two taps of one window do."""
    law, near = x.law, joined(x.near, [window.size for window in windows])
    if law.table.profile is not None or any(len(axes) != 1 for axes in x.dims[2:]) or len(x.dims) != 2 + len(windows):
        return 0.0
    covariance, level = _patterns(law), float(law.mean[0]) ** 2
    within = [window.within(matrix) for window, matrix in zip(windows, near, strict=True)]
    total = weight = 0.0
    for pattern in itertools.product((0, 1), repeat=len(windows)):
        share = math.prod(1 if same else window.at.shape[1] - 1 for same, window in zip(pattern, windows, strict=True))
        closer = math.prod(1.0 if same else factor for same, factor in zip(pattern, within, strict=True))
        if 0 in pattern:
            total += share * ((float(covariance[pattern]) + level) * closer - level)
            weight += share
    own, far = float(covariance[(1,) * len(windows)]), float(covariance[(0,) * len(windows)])
    if weight <= 0.0 or own <= far:
        return 0.0
    return min(max((total / weight - far) / (own - far), 0.0), 1.0)
