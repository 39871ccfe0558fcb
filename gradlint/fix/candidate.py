"""What a fix does to a recorded run, as plain data: steps at ops and parameters, bundled in a candidate."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Swap:
    """Call another function at this op: an activation's name, "identity" to take the op out, or "rnn_relu"."""

    op: int
    function: str


@dataclass(frozen=True)
class Normalise:
    """Normalise the op's output, without gain and shift: "batch_norm", "layer_norm", "group_norm" or "rms_norm"."""

    op: int
    function: str
    groups: int = 1  # group_norm only


@dataclass(frozen=True)
class Skip:
    """Add the data input of op `start` to the output of op `end`.

    Their shapes are equal, or the input is projected: to other features, or channels in steps of `stride` positions.
    """

    start: int
    end: int
    source: int  # the value id that is added
    stride: int = 0  # of the projection; 0 adds the input as it is
    channels: bool = False  # whether it projects the second axis, as between convolutions, or the last one


@dataclass(frozen=True)
class Bypass:
    """Let the addition `op` take what goes into `norm`, an op before it, for `source`, the value that comes out."""

    op: int
    norm: int
    source: int


@dataclass(frozen=True)
class Prenormalise:
    """Normalise the value `source` where these ops read it, by "layer_norm" or "rms_norm"."""

    ops: tuple[int, ...]
    source: int
    function: str


@dataclass(frozen=True)
class Initialise:
    """Draw a parameter anew (see `gradlint.fix.initialisation`).

    `scheme` names the distribution; `gain` is its gain, or the factor, constant or bound that the scheme takes.
    """

    param: str
    scheme: str
    gain: float = 1.0
    fan_in: int = 0
    fan_out: int = 0


@dataclass(frozen=True)
class Rescale:
    """Divide the op's weight, during the run, by the standard deviation of its output (LSUV, Mishkin & Matas 2016)."""

    op: int
    param: str


@dataclass(frozen=True)
class Guard:
    """Keep the argument of this op within `bound` (see `interventions.SAFE`), where its derivative is finite."""

    op: int
    bound: float


@dataclass(frozen=True)
class Fuse:
    """Give op `end` the result of one function (see `interventions.FUSED`) of the data input of op `start`.

    The ops from the one to the other compute the same in steps that round to 0 or overflow.
    """

    start: int
    end: int
    function: str
    dims: tuple[int, ...] = ()  # along which it normalises or sums
    keepdim: bool = False


@dataclass(frozen=True)
class Soften:
    """Let op `end`, an embedding, mix its rows by the softmax of what goes into op `start`, an argmax."""

    start: int
    end: int


@dataclass(frozen=True)
class Score:
    """Judge the model's output by another loss."""

    loss: str


@dataclass(frozen=True)
class Stress:
    """Provoke the fault at this op.

    "zero" makes its argument 0 for one sample, "large" makes it 1000 times larger, "high" the same without its sign.
    "extreme" makes every entry of one sample ±1000.
    """

    op: int
    kind: str


@dataclass(frozen=True)
class Witness:
    """Note something of this op's output: "distinct", "variety" or "width" (see `interventions.WITNESSES`)."""

    op: int
    kind: str


Step = (
    Swap
    | Normalise
    | Skip
    | Bypass
    | Prenormalise
    | Initialise
    | Rescale
    | Guard
    | Fuse
    | Soften
    | Score
    | Stress
    | Witness
)


@dataclass(frozen=True)
class Candidate:
    """A change to try. `steps` is its identity: two candidates with the same steps are the same trial."""

    title: str
    steps: tuple[Step, ...]
    price: str = ""
    parameters: int = 0  # how many parameters it adds
    work: float = 0.0  # elementwise work it adds, as a share of the model's multiply-adds
    edits: int = 1  # how many kinds of edit the user makes
    variant: str = ""  # of candidates that differ in a number only, one is enough
