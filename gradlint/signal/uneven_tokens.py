"""Tokens of unequal energy in a softmax: what its rows average varies between rows, and between samples of few tokens.

The logit of a query and a key has the deviation σ√(e_q e_k) for energies e of mean 1. A key of large energy has large
weights in some rows and small ones in others, so that few keys decide how far the rows of one sample are from equal
weights, and a query of large energy has a row of few keys. The moments of a row are those of `participation`, with a
mixture of normal laws in place of one.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from gradlint.signal.participation import transforms
from gradlint.signal.patterns import Array
from gradlint.signal.sway import EVEN, Law, Tokens

NODES = 4  # of log energies to either side of the mean
REACH = 2.5  # deviations of the log energy that these hold: beyond are fewer than one in a hundred tokens


class Uneven(NamedTuple):
    """Rows over tokens of unequal energy; the first two numbers over what they are where energies are equal."""

    square: float  # E[Σ a²] − 1/T
    jacobian: float  # E[tr J²], J = diag(a) − a aᵀ
    aligned: float  # E[Σ (a − 1/T)² e] over E[Σ (a − 1/T)²]: weights are large where the values are
    taken: float  # E[Σ a² e] over E[Σ a²]
    twice: float  # E[Σ a² e²] over E[Σ a² e]
    samples: float  # variance from sample to sample of ln Σ (a − 1/T)² e over all rows
    rows: float  # variance of it from row to row
    law: Law


SAME = Uneven(1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, Law(np.ones(1), np.ones(1), np.ones(1), np.ones(1), np.ones(1)))


class Attention(NamedTuple):
    """The sizes of an attention, and which share of what its rows average answers to the query as a weight would."""

    keys: int
    rows: int
    heads: int = 1
    width: int = 1  # of the values in a head
    answering: float = 0.0


def uneven(variance: float, tokens: Tokens, size: Attention) -> Uneven:
    """Rows whose logits have this variance, over tokens of these energies.

    What has the query's energy in it answers to the query as a weight would (`Attention.answering`), the rest is noise.
    """
    if variance <= 0.0 or size.keys < 2 or tokens == EVEN:
        return SAME
    return _uneven(*map(_rounded, (variance, *tokens)), size._replace(answering=round(size.answering, 2)))


def _rounded(number: float) -> float:
    """Three digits, by which what was computed before is found again."""
    return round(number, 2 - math.floor(math.log10(number))) if number > 0.0 else 0.0


@lru_cache(maxsize=1024)
def _uneven(variance: float, together: float, apart: float, size: Attention) -> Uneven:
    keys, rows, heads, width, answering = size
    token, head, energy, of_heads, found, even = _softmax(variance, together, apart, keys)
    whole = np.convolve(token, head)
    square = float(whole @ found.away @ token)
    by_key = whole @ found.away * energy
    by_row = _by_token(found.away @ (token * energy), head)
    aligned = float(token @ by_key)
    of_keys = (1.0 - answering) * by_key / aligned + answering * (2.0 * energy - 1.0)  # Σ e_j e_l over pairs of keys
    of_rows = (1.0 - answering) * by_row / aligned + answering * of_heads
    shared = np.cov(of_keys, of_rows @ head, aweights=token, bias=True) if len(token) > 1 else np.zeros((2, 2))
    across = float(token @ (of_rows - (of_rows @ head)[:, None]) ** 2 @ head)
    single = across + 2.0 / width * float(token @ of_keys**2)
    samples = shared[0, 0] / keys + shared[1, 1] / rows + 2.0 * shared[0, 1] / max(keys, rows)
    samples += (single / keys + across / rows) / heads
    drawn = whole @ found.square
    jacobian, given = (_by_token(part, head) @ head for part in (found.jacobian, found.square @ token))
    return Uneven(
        square / float(even.away[0, 0]),
        float(whole @ found.jacobian) / float(even.jacobian[0]),
        aligned / square,
        float(token @ (drawn * energy)) / float(token @ drawn),
        float(token @ (drawn * energy**2)) / float(token @ (drawn * energy)),
        math.log1p(samples),
        math.log1p(shared[1, 1] + across / heads),
        Law(energy, token, jacobian, given, drawn),
    )


class Softmax(NamedTuple):
    """Laws of energies, and rows over keys of unequal and of equal energy."""

    token: Array  # chances of what all heads have in common
    head: Array  # chances of what a head has of its own
    energy: Array  # of a token in all heads
    of_heads: Array  # of a query in one head, (token, head)
    rows: Rows
    even: Rows


@lru_cache(maxsize=1024)
def _softmax(variance: float, together: float, apart: float, keys: int) -> Softmax:
    step = REACH * math.sqrt(max(together + apart, 1e-6)) / NODES
    token, head = _law(together, step), _law(apart, step)
    whole = np.convolve(token, head)
    level = math.prod(float(chances @ _sizes(chances, step)) for chances in (whole, token))
    rows, even = _rows(variance / level, step, whole, token, keys), _rows(variance, step, ONE, ONE, keys)
    energy = _sizes(token, step) / float(token @ _sizes(token, step))
    of_heads = _by_token(_sizes(whole, step) / float(whole @ _sizes(whole, step)), head)
    return Softmax(token, head, energy, of_heads, rows, even)


def _by_token(values: Array, head: Array) -> Array:
    """Numbers by a query's energy in one head, as (token, head)."""
    return np.lib.stride_tricks.sliding_window_view(values, len(head))


ONE = np.ones(1)


def _sizes(chances: Array, step: float) -> Array:
    """The energies that are so many steps from 1."""
    reach = len(chances) // 2
    sizes: Array = np.exp(step * np.arange(-reach, reach + 1))
    return sizes


def _law(variance: float, step: float) -> Array:
    """The chances of log energies that are whole steps."""
    reach = math.ceil(REACH * math.sqrt(variance) / step - 1e-9) if variance > 0.0 else 0
    chances: Array = np.exp(-0.5 * (step * np.arange(-reach, reach + 1)) ** 2 / max(variance, 1e-300))
    return chances / float(chances.sum())


class Rows(NamedTuple):
    """Moments of rows by the log energy of their query."""

    away: Array  # E[(T a_j − 1)²] by that of the query and that of the key j
    jacobian: Array  # E[tr J²]
    square: Array  # E[T² a_j²], as the first


def _rows(variance: float, step: float, queries: Array, chances: Array, count: int) -> Rows:
    """Rows over `count` keys whose log energies are whole steps, with these chances, by those of the queries.

    Given a query, its products with keys of finitely many features are normal: only their energy in all heads counts.
    """
    reach = len(queries) // 2 + len(chances) // 2
    deviations = [math.sqrt(variance) * math.exp(0.5 * step * shift) for shift in range(-reach, reach + 1)]
    found = transforms(tuple(deviations))
    place = np.arange(len(queries))[:, None] + np.arange(len(chances))[None, :]
    others, first, second, third, fourth = (part[place] for part in found.parts)  # (query, key, s)
    mixed, squares = (np.einsum("k,qks->qs", chances, part) for part in (others, second))
    rest = found.step * mixed ** (count - 1.0)
    single, double = (np.einsum("qks,qs->qk", part, rest) for part in (first, second))
    cubes, fourths = (np.einsum("k,qks,qs->q", chances, part, rest) for part in (third, fourth))
    pairs = np.einsum("qs,qs->q", squares**2, found.step * mixed ** max(count - 2.0, 0.0))
    square = np.clip(count * (double @ chances), 1.0 / count, 1.0)
    squared = np.clip((count * fourths + count * (count - 1.0) * pairs) / 6.0, square**2, square)
    jacobian = np.maximum(square - count * cubes + squared, 0.0)
    away = np.maximum(count**2 * double - 2.0 * count * single + 1.0, 0.0)
    return Rows(away, jacobian, count**2 * double)
