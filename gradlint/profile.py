"""The size of activations and gradients through a graph, predicted or measured: one shape for both, so they compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Gain:
    """How one op changes a signal, in decades (log10 of an RMS ratio); None where unknown.

    `backward` = log10 RMS of the gradient at the op's first data input minus that at its output. For an op whose input
    has other consumers it counts this op's contribution alone. `derivative` and `weight` split it: the factor of the
    activation's derivative E[φ′²]^½ and the weight factor (gain of Wᵀ), the two factors of the chain rule.
    """

    forward: float | None = None
    backward: float | None = None
    derivative: float | None = None
    weight: float | None = None


@dataclass(frozen=True)
class Profile:
    """log10 RMS of everything that flows, keyed by value id (activations, gradients) or parameter path.

    A missing key is unknown (or never reached, for a measured profile); `-inf` is exactly zero, `+inf` or NaN is
    non-finite. `spread` is one standard deviation of a `gradient` or `params` entry, in decades, where it is stated.
    """

    activation: Mapping[int, float] = field(default_factory=dict)
    gradient: Mapping[int, float] = field(default_factory=dict)
    params: Mapping[str, float] = field(default_factory=dict)
    gains: Mapping[int, Gain] = field(default_factory=dict)  # by op index
    spread: Mapping[int | str, float] = field(default_factory=dict)
    correlation: Mapping[int, float] = field(default_factory=dict)  # mean cosine between samples, by value id


@dataclass(frozen=True)
class Signal:
    """The static prediction (see `gradlint.signal`)."""

    profile: Profile
    loss: str
    unknown: Mapping[int, str] = field(default_factory=dict)  # op index → why no transfer function answered
    zeros: Mapping[str, str] = field(default_factory=dict)  # parameter path → why its gradient is structurally zero


@dataclass(frozen=True)
class Units:
    """Shares of an op's output units (channels or features) over the batch and positions, and how many units it has."""

    count: int
    dead: float  # share of units that are zero for every sample (ReLU family), or whose derivative underflows
    saturated: float  # share of units that sit within 1 % of a bound of the activation for over 95 % of entries
    constant: float  # share of units that take the same value for every sample


@dataclass(frozen=True)
class ParamMeasure:
    """One parameter in the measured pass. `grad` and `weight` are log10 RMS; `status` says what the gradient is."""

    grad: float
    weight: float
    # "ok", "zero" (exactly), "none" (no gradient arrived), "frozen", "nonfinite", "unused" (no op read it), "underflow"
    # (zero in float32 only; the sizes are those of a float64 run)
    status: str
    zero_share: float = 0.0
    elasticity: float | None = None  # log10(‖g‖_F ‖w‖_F): loss change per relative change of the tensor


@dataclass(frozen=True)
class Measurement:
    """What one forward + backward showed (see `gradlint.probe`)."""

    profile: Profile
    params: Mapping[str, ParamMeasure]
    units: Mapping[int, Units]  # by op index
    loss: str  # the name of the loss used
    loss_value: float
    chance_loss: float | None  # the loss of an uninformed prediction, ln C for cross-entropy
    output_rms: float  # log10 RMS of the (first floating) output
    output_spread: float  # log10 of the standard deviation between samples
    nonfinite_op: int | None = None  # first op whose output held NaN or Inf
    nonfinite_gradient_op: int | None = None  # the op nearest the loss whose gradient held NaN or Inf
    extremes: Mapping[int, tuple[float, float]] = field(default_factory=dict)  # value id → (min, max) of the entries
    seeds: tuple[int, ...] = (0,)
    device: str = "cpu"
    dtype: str = "float32"
    notes: tuple[str, ...] = ()
    # by index of a recurrent op: log10 RMS of the gradient at each time step of its input, first step first
    through_time: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    # the same measurement with exactly-zero parameters that blocked the gradient moved off zero, and which they are
    unblocked: Measurement | None = None
    moved: tuple[str, ...] = ()
