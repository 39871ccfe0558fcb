"""What a run found, per target: the value that every report format is a pure function of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gradlint.error import GradlintError
from gradlint.finding import Finding, Severity

Status = Literal["analysed", "failed", "skipped"]


@dataclass(frozen=True)
class Failure:
    """Why a target could not be analysed."""

    kind: str
    message: str
    hint: str = ""
    path: str | None = None
    line: int | None = None
    trace: str = ""  # the traceback, where --debug asked for it


@dataclass(frozen=True)
class InputUsed:
    """One example input: how it was chosen is `source`: "cli", "config", "example" (the model's own) or "guessed"."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    source: str
    values: str = ""  # the distribution the entries were drawn from


@dataclass(frozen=True)
class Ways:
    """The ways of a gradient from the loss to a value, by what accumulates along each: decades of RMS.

    `strongest` takes the largest share wherever ways meet; `least` and `greatest` bound all of them. `shares` is how
    much of the mean square comes from each consumer (op index), where there are several.
    """

    strongest: float
    least: float
    greatest: float
    shares: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Layer:
    """One op of the gradient chart; RMS values are plain numbers in float64 (None: unknown, or not finite)."""

    module: str
    op: str
    kind: str
    path: str | None
    line: int | None
    activation_rms: float | None
    gradient_rms: float | None
    predicted_gradient_rms: float | None
    predicted_activation_rms: float | None = None
    index: int | None = None  # the op's index in its graph, which `Finding.ops` speaks of
    ways: Ways | None = None  # predicted, of the gradient to the op's output


@dataclass(frozen=True)
class FormatRun:
    """What a narrower number format loses of the gradient.

    `lost` is the share of its entries that underflow to zero; `hit` counts the parameters of `parameters` that lose
    more than half of their gradient's size, and `worst` is the one that loses most. `overflow` and `gradient_overflow`
    name the op whose output, or gradient, is not finite; the `scaled` ones are what a loss scale leaves.
    """

    dtype: str
    lost: float = 0.0
    hit: int = 0
    parameters: int = 0
    worst: str = ""
    overflow: str = ""
    gradient_overflow: str = ""
    loss_scale: float | None = None
    scaled_lost: float | None = None
    scaled_hit: int | None = None
    scaled_overflow: str = ""


@dataclass(frozen=True)
class ProbeRun:
    """How the probe was run, or why it was not."""

    ran: bool
    seeds: tuple[int, ...] = ()
    device: str = "cpu"
    loss: str = ""
    loss_value: float | None = None
    seconds: float = 0.0
    reason: str = ""
    format: FormatRun | None = None


@dataclass(frozen=True)
class Curve:
    """RMS of one weight's gradient at each training step (None: not finite), with the place of the op that reads it."""

    parameter: str
    gradient_rms: tuple[float | None, ...]
    path: str | None = None
    line: int | None = None


@dataclass(frozen=True)
class TraceRun:
    """A short training run; curves are in the order in which the model reads the weights."""

    optimizer: str
    rate: float
    data: str  # "given", or "made up": one batch, drawn once
    loss: str
    losses: tuple[float | None, ...]  # before each step; None: not finite
    curves: tuple[Curve, ...]
    stopped: str = ""  # why it ended before its last step, or empty
    agreement: float | None = None  # mean cosine between the gradients of parts of the first batch
    seconds: float = 0.0


@dataclass(frozen=True)
class TargetReport:
    """Everything about one target."""

    target: str
    path: str | None
    line: int | None
    status: Status
    error: Failure | None = None
    inputs: tuple[InputUsed, ...] = ()
    method: str = ""
    ops: int = 0
    parameters: int = 0
    unknown: tuple[tuple[str, int], ...] = ()
    unpredicted: tuple[tuple[str, int], ...] = ()  # ops that are known but that the prediction has no rule for
    probe: ProbeRun = ProbeRun(ran=False)
    findings: tuple[Finding, ...] = ()
    layers: tuple[Layer, ...] = ()
    notes: tuple[str, ...] = ()  # guessed arguments, tolerated imports, fallen-back devices …
    seconds: float = 0.0
    trace: TraceRun | None = None


@dataclass(frozen=True)
class Report:
    """The whole run."""

    targets: tuple[TargetReport, ...]
    version: str
    seconds: float = 0.0
    settings: Mapping[str, object] = field(default_factory=dict)
    errors: tuple[Failure, ...] = ()  # what went wrong outside any target: usage, configuration, interruption
    notes: tuple[str, ...] = ()  # on the run as a whole: stale entries of the baseline
    cached: int = 0  # how many of the targets were known from an earlier run

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings of every target, in target order."""
        return tuple(f for target in self.targets for f in target.findings)

    def count(self, severity: Severity) -> int:
        """How many findings of this severity stand (refuted and suppressed ones do not)."""
        return sum(1 for f in self.findings if f.severity == severity and f.stands)


def failed(target: str, path: str | None, error: GradlintError) -> TargetReport:
    """The report of a target that could not be analysed; `path` is the file where the error knows no place."""
    span = error.span
    failure = Failure(error.kind, error.message, error.hint, span.path if span else path, span.line if span else None)
    return TargetReport(target, path, failure.line, "failed", failure)
