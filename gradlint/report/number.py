"""How numbers are written for people: three digits, decades as factors, shares as percentages."""

from __future__ import annotations

import math
from collections.abc import Mapping

from gradlint.finding import Number
from gradlint.quantity import QUANTITIES

HEALTH = "health"
# What the numbers of findings and fixes are called, so that they can be understood without the documentation; any
# other key is written as it is spelt.
LABELS: Mapping[str, str] = {
    "gradient-change": "gradient passed back",
    "activation-change": "activation passed on",
    "activation-size": "largest activation (RMS)",
    "gradient-size": "largest gradient (RMS)",
    "relative-gradient": "smallest gradient/weight ratio",
    "top-relative-gradient": "largest gradient/weight ratio",
    "elasticity-excess": "loss sensitivity, greatest over last layer's",
    "output-spread": "spread of the output between samples (std)",
    "loss-above-chance": "loss over that of a blind guess",
    "dead-share": "units that are 0 for every sample",
    "saturated-share": "saturated units",
    "constant-share": "units with one value for every sample",
    "distinct-share": "units that differ from each other",
    "reached-share": "time steps that a gradient reaches",
    "reached_share": "time steps that a gradient reaches",
    "least-entry": "smallest value there",
    "greatest-entry": "largest value there",
    "mean_over_std": "mean of the weights over their std",
    "finite": "every number finite",
    HEALTH: "whole model",
}
FACTORS = ("gradient-change", "activation-change", "elasticity-excess", "loss-above-chance")  # ratios: written × 0.1


def number(value: Number) -> str:
    """A number with three significant digits, in scientific notation outside 0.001 … 10000."""
    if value is None:
        return "unknown"
    if isinstance(value, (bool, str)):
        return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else value
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value) or value == 0:
        return {math.inf: "inf", -math.inf: "-inf"}.get(value, "nan" if math.isnan(value) else "0")
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"
    return f"{value:.1e}"


def power(decades: float) -> str:
    """10 to this power, as a number; stays right where a float64 would overflow or underflow."""
    if math.isnan(decades) or decades == math.inf:
        return "nan" if math.isnan(decades) else "inf"
    if -300 < decades < 300:
        return number(float(10**decades))
    if decades == -math.inf:
        return "0"
    whole = math.floor(decades)
    return f"{10 ** (decades - whole):.1f}e{whole:+03d}"


def quantity(key: str, value: Number) -> str:
    """One entry of a finding's `predicted` or `measured`: its label and its amount."""
    return f"{label(key)} {amount(key, value)}"


def label(key: str) -> str:
    """What a quantity is called."""
    return LABELS.get(key, key.replace("_", " ").replace("-", " "))


def amount(key: str, value: Number) -> str:
    """The value in the unit of its quantity: decades as the number they stand for, ratios with ×, shares in percent."""
    unit = QUANTITIES[key].unit if key in QUANTITIES else _unit(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return number(value)
    if unit == "share" and math.isfinite(value):
        return f"{100 * value:.3g} %"
    if unit == "decades":
        return f"{'× ' if key in FACTORS else ''}{power(value)}"
    return number(value)


def quantities(values: Mapping[str, Number]) -> str:
    """Every entry, separated by commas."""
    return ", ".join(quantity(key, value) for key, value in values.items())


def count(amount: int, noun: str) -> str:
    """ "1 warning", "2 warnings"."""
    return f"{amount} {noun}" if amount == 1 else f"{amount} {noun}s"


def seconds(value: float) -> str:
    """A duration: "0.4 s", "12 s", "3 min 20 s"."""
    if value >= 60:
        return f"{int(value // 60)} min {value % 60:.0f} s"
    return f"{value:.0f} s" if value >= 9.95 else f"{value:.1f} s"


def shape(sizes: tuple[int, ...]) -> str:
    """A tensor's shape: "[8,3,32,32]"."""
    return f"[{','.join(map(str, sizes))}]"


def _unit(key: str) -> str:
    return next((unit for unit in ("share",) if key.endswith(unit)), "")
