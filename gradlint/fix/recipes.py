"""Which changes are worth trying for which cause, in the order of the evidence in signal.md §5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gradlint.finding import Finding


@dataclass(frozen=True)
class Recipe:
    """One row of the table: what is changed along a stretch; what is left empty stays as it is.

    `activation`: the function in place of the stretch's activations.
    `init`: "matched" (to the activation after each layer), "xavier", "orthogonal", "lsuv", "default" (torch's), "depth"
    (the last weight of each residual branch × 1/√branches) or "zero" (the same weight zero).
    `norm`: "fitting" (by layout, batch and task) or a norm's name. `skip`: an identity around every block it fits.
    `project`: a projection around the other ones, too, where most blocks change the shape.
    `prenorm`: the norms of residual sums go before the branches.
    `recurrent`: "irnn", "orthogonal-rnn" or "forget-bias". `output`: the function in place of the output activation.
    `inner`: that one only where another function of the output comes after it.
    `drop`: the first of the finding's ops is taken out.
    `fused`: the finding's ops, with those before them, become one function that is finite for all numbers.
    `soft`: rows that the finding's argmax chooses are mixed by their scores.
    `loss`: the loss that takes the output as it is, in place of the one it is given to.
    `guard`: how far the arguments of the finding's ops are kept from a singularity.
    """

    activation: str = ""
    init: str = ""
    norm: str = ""
    skip: bool = False
    project: bool = False
    prenorm: bool = False
    recurrent: str = ""
    output: str = ""
    inner: bool = False
    drop: bool = False
    fused: bool = False
    soft: bool = False
    loss: bool = False
    guard: float = 0.0


RELU_HE = Recipe(activation="relu", init="matched")
LEAKY_HE = Recipe(activation="leaky_relu", init="matched")
ELU = Recipe(activation="elu", init="matched")
GELU = Recipe(activation="gelu", init="matched")
SILU = Recipe(activation="silu", init="matched")
SELU = Recipe(activation="selu", init="matched")
TANH = Recipe(activation="tanh", init="matched")
RELU = Recipe(activation="relu")
LEAKY = Recipe(activation="leaky_relu")
MATCHED = Recipe(init="matched")
XAVIER = Recipe(init="xavier")
ORTHOGONAL = Recipe(init="orthogonal")
LSUV = Recipe(init="lsuv")
DEFAULT = Recipe(init="default")
DEPTH = Recipe(init="depth")
ZERO = Recipe(init="zero")
NORM = Recipe(norm="fitting")
RMS = Recipe(norm="rms_norm")
SKIP = Recipe(skip=True)
NORM_SKIP = Recipe(norm="fitting", skip=True)
NORM_PROJECTION = Recipe(norm="fitting", project=True)
MATCHED_NORM = Recipe(init="matched", norm="fitting")
RELU_HE_NORM = Recipe(activation="relu", init="matched", norm="fitting")
RELU_HE_NORM_SKIP = Recipe(activation="relu", init="matched", norm="fitting", skip=True)
PRE_NORM = Recipe(prenorm=True)
IRNN = Recipe(recurrent="irnn")
ORTHOGONAL_RNN = Recipe(recurrent="orthogonal-rnn")
FORGET = Recipe(recurrent="forget-bias")
DROP = Recipe(drop=True)
GUARD = Recipe(guard=1e-6)
STRICT_GUARD = Recipe(guard=1e-3)
FUSED = Recipe(fused=True)
SOFT_LOOKUP = Recipe(soft=True)
OTHER_LOSS = Recipe(loss=True)
NO_OUTPUT = Recipe(output="identity")
NO_INNER_OUTPUT = Recipe(output="identity", inner=True)
SIGMOID_OUTPUT = Recipe(output="sigmoid")
LOG_SOFTMAX_OUTPUT = Recipe(output="log_softmax")

SATURATING = (RELU_HE, NORM_SKIP, NORM_PROJECTION, NORM, SELU, RELU_HE_NORM_SKIP, ELU, GELU, TANH, LEAKY_HE)
SHRINKING = (MATCHED, PRE_NORM, NORM, NORM_SKIP, NORM_PROJECTION, RELU_HE, LSUV, ORTHOGONAL, RELU_HE_NORM_SKIP, SELU)
GROWING = (MATCHED, XAVIER, PRE_NORM, NORM, NORM_SKIP, RELU_HE, DEPTH, ZERO, ORTHOGONAL, LSUV, RELU_HE_NORM_SKIP)
DYING = (NO_OUTPUT, LEAKY, MATCHED, LEAKY_HE, NORM, ELU, SELU)
RECURRENT = (IRNN, ORTHOGONAL_RNN, FORGET)

# A finding's cause is looked up first, then its rule, then its family.
TABLE: Mapping[str, tuple[Recipe, ...]] = {
    "saturating-chain": SATURATING,
    "vanishing-init": SHRINKING,
    "large-init": GROWING,
    "exponential-activation": (RELU_HE, LEAKY_HE, ELU, TANH, SELU, RELU_HE_NORM),
    "constant-init": (DEFAULT, MATCHED),
    "zero-init": (DEFAULT, MATCHED),
    "missing-normalization": (NORM, NORM_SKIP, MATCHED, RELU_HE, RELU_HE_NORM_SKIP),
    "missing-skip": (SKIP, NORM_SKIP, NORM_PROJECTION, MATCHED, RELU_HE, NORM, RELU_HE_NORM_SKIP),
    "hidden-softmax": (RELU, RELU_HE, RELU_HE_NORM),
    "dead-units": DYING,
    "recurrent-vanishing": RECURRENT,
    "vanishing": (*RECURRENT, PRE_NORM, MATCHED, RELU_HE, NORM_SKIP, NORM, LSUV, SELU, RELU_HE_NORM_SKIP),
    "exploding": (ORTHOGONAL_RNN, *GROWING),
    "init": (MATCHED, DEFAULT, NORM, ORTHOGONAL, LSUV, RELU_HE),
    "normalization": (NORM, NORM_SKIP, RMS, MATCHED),
    "architecture": (PRE_NORM, SKIP, NORM_SKIP, NORM_PROJECTION, RELU_HE, NORM),
    "units": DYING,
    "one-unit-softmax": (SIGMOID_OUTPUT, NO_OUTPUT),
    "double-activation": (DROP,),
    "not-finite": (FUSED, GUARD, STRICT_GUARD, *GROWING),
    "wrong-range": (OTHER_LOSS, SIGMOID_OUTPUT, LOG_SOFTMAX_OUTPUT),
    "output": (NO_OUTPUT, NO_INNER_OUTPUT, SIGMOID_OUTPUT, LOG_SOFTMAX_OUTPUT),
    "broken-gradient": (SOFT_LOOKUP,),
    "numerics": (FUSED, GUARD, STRICT_GUARD),
}
# Notes that a trial can tell the mending of, although the model is healthy at the start; to others nothing is offered.
NOTES: Mapping[str, tuple[Recipe, ...]] = {"deep-post-norm": (PRE_NORM,)}
# What may stand at the output depends on the loss that reads it.
OUTPUTS: Mapping[str, tuple[Recipe, ...]] = {
    "ce": (NO_OUTPUT,),
    "bce_logits": (NO_OUTPUT,),
    "nll": (NO_INNER_OUTPUT, LOG_SOFTMAX_OUTPUT),  # bare logits are no log-probabilities: their loss has no bottom
    "nll_prob": (SIGMOID_OUTPUT,),
    "bce": (SIGMOID_OUTPUT,),
    "mse": (NO_OUTPUT,),
}


def recipes(finding: Finding, loss: str) -> tuple[Recipe, ...]:
    """What to try for a finding, best evidence first; nothing for a cause that no change of numbers cures (wiring)."""
    if finding.severity == "info":
        return NOTES.get(finding.rule, ())
    keys = (finding.cause, finding.rule, finding.family)
    found = next((TABLE[key] for key in keys if key in TABLE), ())
    return tuple(recipe for recipe in found if not recipe.output or recipe in OUTPUTS.get(loss, found))
