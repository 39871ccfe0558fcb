"""The size of activations and gradients through a graph, predicted or measured: one shape for both, so they compare."""

from __future__ import annotations

import math
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
    # by value id: log10 RMS of the gradient that each op (by index) that reads the value sends to it; predicted only
    ways: Mapping[int, Mapping[int, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Signal:
    """The static prediction (see `gradlint.signal`)."""

    profile: Profile
    loss: str
    unknown: Mapping[int, str] = field(default_factory=dict)  # op index → why no transfer function answered
    zeros: Mapping[str, str] = field(default_factory=dict)  # parameter path → why its gradient is structurally zero
    optimizer: str = "any"  # what the model will be trained with


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
class Precision:
    """What a pass in a narrower format showed that full precision does not (see `gradlint.probe.precision`).

    Shares are of the entries of a gradient: those that are zero here and are not in full precision. `changes` are the
    decades that a gradient's RMS differs by, -inf where all of it is lost: small entries may vanish without harm.
    `headroom` is log10(largest number of the format / largest magnitude in full precision), below 0 for an overflow.
    """

    dtype: str  # "float16", "bfloat16" or "float8"
    headroom: Mapping[int, float] = field(default_factory=dict)  # by value id, of activations held in the format
    gradient_headroom: Mapping[int, float] = field(default_factory=dict)  # the same of their gradients, unscaled
    underflow: Mapping[int, float] = field(default_factory=dict)  # share lost by value id
    params: Mapping[str, float] = field(default_factory=dict)  # share lost by parameter path
    changes: Mapping[str, float] = field(default_factory=dict)  # by parameter path
    lost: float = 0.0  # share lost of the entries of all parameter gradients
    overflow_op: int | None = None  # first op whose output is not finite here only
    overflow_gradient_op: int | None = None  # op nearest the loss whose gradient is not finite here only
    # the power of two by which the loss is multiplied so that the largest gradient just fits; None when nothing is lost
    loss_scale: float | None = None
    lost_scaled: float | None = None  # `lost` as measured with that scale …
    changes_scaled: Mapping[str, float] = field(default_factory=dict)  # … and `changes`
    scaled_overflow_op: int | None = None  # op whose gradient is not finite with that scale either


@dataclass(frozen=True)
class Question:
    """Does one entry of the value `end` along its axis depend on others of the value `source` along its own axis?"""

    end: int
    end_axis: int
    source: int
    source_axis: int


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
    precision: Precision | None = None  # where another format was asked for
    # log10 RMS of the gradient of the middle entry of a question's end, at each entry of its source (evaluation mode)
    dependence: Mapping[Question, tuple[float, ...]] = field(default_factory=dict)
    optimizer: str = "any"  # what the model will be trained with: "sgd", "adam" or "any"
    guessed: bool = False  # whether the loss is a guess from the output alone


@dataclass(frozen=True)
class Trace:
    """A short training run: the loss before each step, and log10 RMS of the gradient of every weight at it.

    `stopped` says why it ended before its last step, or is empty; `agreement` is the mean cosine between the gradients
    of parts of the first batch, from -1 (they cancel) to 1 (they are the same), None for a batch that cannot be split.
    """

    optimizer: str  # "sgd" (momentum 0.9) or "adam"
    rate: float
    data: str  # "given", or "made up": one batch, drawn once
    loss: str
    losses: tuple[float, ...] = ()
    gradients: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # by parameter path
    stopped: str = ""
    agreement: float | None = None
    seconds: float = 0.0

    @property
    def finite(self) -> bool:
        """Whether every loss is a number."""
        return all(map(math.isfinite, self.losses))
