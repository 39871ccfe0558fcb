"""What a rule says, what the probe answered, and what helped: plain data from the rule to every report format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from gradlint.graph.ir import Span

Severity = Literal["error", "warning", "info"]
Verdict = Literal["confirmed", "refuted", "measured", "not-probed"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
FAMILIES = (
    "vanishing",
    "exploding",
    "init",
    "normalization",
    "architecture",
    "units",
    "output",
    "numerics",
    "wiring",
)

Number = float | int | str | bool | None


@dataclass(frozen=True)
class Claim:
    """The measurable statement under a finding: `quantity` of `subject` lies beyond `limit`.

    `quantity` names a function in `gradlint.quantity.QUANTITIES`, which reads a predicted or a measured profile alike;
    `subject` holds value ids, op indices or parameter paths, as that function says. The claim holds when the quantity
    is "above" or "below" the limit.
    """

    quantity: str
    subject: tuple[int | str, ...]
    limit: float
    sense: Literal["above", "below"]


@dataclass(frozen=True)
class Related:
    """A further place that belongs to a finding, with a short label ("gain 0.24 with default init")."""

    span: Span | None
    module: str
    label: str


@dataclass(frozen=True)
class Factor:
    """One factor of the chain-rule product along the stretch a finding is about, in decades."""

    op: int
    module: str
    label: str  # "σ′(z)", "W", "norm", "merge"
    decades: float


@dataclass(frozen=True)
class Draft:
    """What a rule yields; the engine adds the rule's metadata and the verdict."""

    message: str
    op: int | None = None  # where the primary span is taken from
    module: str | None = None  # overrides the op's module path, or names a module without an op
    ops: tuple[int, ...] = ()  # every op of the stretch, for folding, charts and fixes
    related: tuple[Related, ...] = ()
    predicted: Mapping[str, Number] = field(default_factory=dict)
    measured: Mapping[str, Number] = field(default_factory=dict)  # filled by rules that read the probe themselves
    claim: Claim | None = None
    numbers: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)  # further quantities → subject, to print
    severity: Severity | None = None  # overrides the rule's default
    factors: tuple[Factor, ...] = ()
    cause: str = ""  # a key of the fix table when it is narrower than the rule's name


@dataclass(frozen=True)
class Change:
    """One step of a fix in terms of the user's source, from which `gradlint.fix.edits` computes the edit.

    `kind` is "activation" (`old` becomes `new` where `span` constructs or calls it), "call" (the same for one call of
    a module that serves elsewhere, too), "norm" (`new` of `size` features after the layer `old` that `span` makes),
    "prenorm" (the norm that `span` calls on a sum goes before the sum's branch; the layer `old` takes `norm_first`),
    "final-norm" (a norm `new` as `module` is comes after all that the attribute `old` holds, or after `span`),
    "skip" (the input of the `size` calls from `span` to `end` is added to their output), "guard" (the argument of the
    function `old` at `span` is kept within `gain`), "fuse" (the call of `old` at `span`, on what `last` made, becomes
    one of `new`), "soften" (the module `name` looks up at `span` what an argmax at `end` chooses, and mixes instead),
    "loss" (the file's loss becomes the one called `new`), "register" (the list of modules at `span`
    becomes one of torch's), "init" (the weights of a layer are drawn by the scheme `new`), "draw" (one parameter is) or
    "untouched" (a layer, or the parameter `old`, that stays as it is).
    `module` is the layer, or the parameter, as the root module's methods write it, "self.head"; `types` are its class
    and the root's. `place` is the position among the `of` sites alike that the same line makes; of a layer, among
    the layers of the model.
    """

    kind: Literal[
        "activation",
        "call",
        "norm",
        "prenorm",
        "final-norm",
        "skip",
        "guard",
        "fuse",
        "soften",
        "loss",
        "register",
        "init",
        "draw",
        "untouched",
    ]
    new: str = ""
    old: str = ""
    name: str = ""  # what was called, "torch.sigmoid"; empty for a module
    span: Span | None = None
    place: int = 0
    of: int = 1
    module: str = ""
    types: tuple[str, str] = ("", "")
    gain: float = 1.0  # of an init; a guard's bound; the groups of a norm
    bias: str = ""  # of an init: "zeros", "default_bias", or "" without one
    offset: bool = False  # of an init: the source sets the bias to a number that decides what the layer makes
    size: int = 0
    fans: tuple[int, int] = (0, 0)  # of a drawn parameter
    stride: int = 0  # of the projection that a skip needs; 0 without one
    axis: int = 0  # of a softmax that is fused, where the source does not say it
    end: Span | None = None  # where a skip ends
    last: str = ""  # what is called there: a class of modules, or a function
    items: tuple[int, ...] = ()  # of layers in a list that `module` names: the first, the last, and how many it has
    partial: bool = False  # of a skip: calls of the same line whose shape changes go without


@dataclass(frozen=True)
class Size:
    """How large the output of an op and the gradient there are with a fix: RMS, None where unknown or not finite."""

    op: int
    activation_rms: float | None
    gradient_rms: float | None


@dataclass(frozen=True)
class Trained:
    """The losses of two short training runs, of the model as it is and with a fix: same start, same data, own rates.

    `step_time` is the duration of a step with the fix over that without. `stopped` says why a run ended early.
    """

    optimizer: str
    rate: float  # with the fix
    data: str  # "given", or "made up": one batch, drawn once
    before: tuple[float, ...]  # the loss before each step; the last one may be NaN or infinite
    after: tuple[float, ...]
    step_time: float | None = None
    stopped: tuple[str, str] = ("", "")
    rate_before: float | None = None  # of the model as it is, where that is another


def settled(losses: Sequence[float]) -> float:
    """The loss that a run came to: the mean of its last tenth, NaN or infinite where one of those is."""
    tail = losses[-max(1, len(losses) // 10) :]
    return sum(tail) / len(tail) if tail else float("nan")


@dataclass(frozen=True)
class Fix:
    """A change that was tried by intervention and helped: `measured_after` holds the finding's numbers after it."""

    title: str
    measured_before: Mapping[str, Number]
    measured_after: Mapping[str, Number]
    price: str = ""  # what it costs: parameters, numerics, task limits
    symptomatic: bool = False  # treats the symptom (clipping, weight decay), not the cause
    changes: tuple[Change, ...] = ()  # the same in terms of the source; none where no edit can express it
    applicable: Literal["safe", "unsafe"] | None = None  # whether `--fix` can write it; unsafe: the function changes
    advice: str = ""  # why an edit that was written did not stand, and was taken back
    trained: tuple[Trained, ...] = ()  # what `--prove` showed, one an optimizer
    layers: tuple[Size, ...] = ()  # the model's layers as they were measured with it; of a finding's first fix alone


@dataclass(frozen=True)
class Suppression:
    """Why a finding does not count: a comment in the source, the configuration, or the baseline that knows it."""

    kind: Literal["comment", "configuration", "baseline"]
    reason: str = ""
    span: Span | None = None  # of the comment


@dataclass(frozen=True)
class Finding:
    """One finding of the report."""

    code: str
    rule: str
    family: str
    severity: Severity
    verdict: Verdict
    message: str
    module: str = ""
    span: Span | None = None
    related: tuple[Related, ...] = ()
    predicted: Mapping[str, Number] = field(default_factory=dict)
    measured: Mapping[str, Number] = field(default_factory=dict)
    claim: Claim | None = None
    reason: str = ""  # why it was refuted or not probed
    factors: tuple[Factor, ...] = ()
    fixes: tuple[Fix, ...] = ()
    op: int | None = None
    ops: tuple[int, ...] = ()
    cause: str = ""
    folded: tuple[str, ...] = ()  # messages of findings on the same cause, folded under this one
    subjects: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)  # of further quantities, by name
    suppression: Suppression | None = None
    rejected: tuple[Fix, ...] = ()  # what was tried and did not help, with its numbers

    @property
    def stands(self) -> bool:
        """Whether the finding counts: the probe did not refute it, and nothing suppresses it."""
        return self.verdict != "refuted" and self.suppression is None
