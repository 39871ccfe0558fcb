"""Rows that are nearly zero where others are not: a norm that reads them makes their gradients large.

The row of a padding token starts at zero. What is added to it on the way is small, so that a norm divides it by next to
nothing; whether a batch holds such a row is chance, and few of them can make up a gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gradlint.signal.patterns import Array


@dataclass(frozen=True)
class Faint:
    """The `share` of rows that are faint, and E[x²] of these over that of all rows."""

    share: float
    level: float = 0.0


@dataclass(frozen=True)
class Mixture:
    """E[x²] of a tensor and its faint rows, None where there are none."""

    square: float
    faint: Faint | None

    @property
    def level(self) -> float:
        """E[x²] of the rows that are faint in another operand, over that of all rows."""
        return 1.0 if self.faint is None else self.faint.level


def empty_rows(square: Array | None) -> Faint | None:
    """The rows of a table that are zero, each picked as often as any other, given Σ w² by row."""
    if square is None:
        return None
    share = float(np.mean(square == 0.0))
    return Faint(share) if 0.0 < share < 1.0 else None


def of_sum(x: Mixture, y: Mixture) -> Faint | None:
    """The faint rows of a sum of independent tensors; faint rows of both are the same ones."""
    total = x.square + y.square
    known = [part.faint for part in (x, y) if part.faint is not None]
    if not known or not total > 0.0:
        return None
    return Faint(min(part.share for part in known), (x.square * x.level + y.square * y.level) / total)


def of_product(x: Mixture, y: Mixture) -> Faint | None:
    """The faint rows of a product."""
    known = [part.faint for part in (x, y) if part.faint is not None]
    return Faint(min(part.share for part in known), x.level * y.level) if known else None


def after_norm(faint: Faint | None, variance: float, eps: float) -> Faint | None:
    """The faint rows of what a norm makes of a tensor of this variance by row."""
    if faint is None:
        return None
    return Faint(faint.share, faint.level * (variance + eps) / (faint.level * variance + eps))


def doubt_behind(faint: Faint | None, variance: float, eps: float) -> float:
    """Decades² by which the gradient below a norm may be off: faint rows add p(σ² + ε)/(lσ² + ε) to its square.

    Rows that are zero still, as nothing was added to them, have nothing but themselves below them.
    """
    if faint is None or faint.level == 0.0:
        return 0.0
    grown = faint.share * (variance + eps) / (faint.level * variance + eps)
    return (0.5 * math.log10(1.0 - faint.share + grown)) ** 2 if grown > faint.share else 0.0
