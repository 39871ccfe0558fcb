"""What of a run depends on nothing that was fed in: its entries, and what its gradient makes of the parameters behind.

Such a value need not be predicted: it was there. Tensors are looked at when a call that does depend on what was fed in
reads them, so that none is kept alive.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
import torch

from gradlint.capture import vocabulary
from gradlint.capture.arguments import dtype_name
from gradlint.capture.moments import MAX_AXES, subsets
from gradlint.capture.record import REBASED, Call, Leaf, Ref
from gradlint.capture.row import Entry
from gradlint.capture.statistics import statistics
from gradlint.graph.ir import HIDING, Fixed, Param

ENTRIES_UP_TO = 1 << 22  # of a tensor that is looked at
INTEGERS_UP_TO = 1 << 18  # the same for integers, which are counted by sorting
DRAWS = 8  # cotangents for each set of axes: a mean square over n entries is known to √(2/8n)
DRAWS_OF_MANY = 2  # the same for a value of many entries
MANY = 1 << 15

# what the signal follows from parameters itself, exactly
FOLLOWED = frozenset(
    {"reshape", "permute", "expand", "slice", "split", "concat", "copy", "embedding", "norm", "add", "mul"}
)
RANDOM = (
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal", "normal_", "uniform_",
    "bernoulli", "bernoulli_", "random_", "exponential_", "multinomial", "poisson", "dropout", "alpha_dropout",
    "feature_dropout", "feature_alpha_dropout", "dropout1d", "dropout2d", "dropout3d", "gumbel_softmax", "rrelu",
    "new_empty", "empty", "empty_like", "trunc_normal_", "log_normal_", "geometric_", "cauchy_",
)  # fmt: skip
# tensors of which these functions read the numbers: of the others only the type or the shape
READ = dict.fromkeys(("to", "type_as", "expand_as", "view_as", "reshape_as"), 1) | dict.fromkeys(
    ("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "new_tensor"), 0
)
STATISTICS = ("batch_norm", "instance_norm")  # their buffers are not read in training

Given = Sequence[tuple[Ref, torch.Tensor]]


@dataclass(frozen=True)
class Behind:
    """The parameters that a value is computed from; `answered` where the signal follows every step of it itself."""

    leaves: tuple[Leaf, ...]
    answered: bool = True


NOTHING = Behind(())


@dataclass
class Following:
    """Follows the calls of a run one by one; `found` and `seen` are what was there, by the value that it was."""

    found: dict[Ref, Fixed] = field(default_factory=dict)
    seen: dict[Ref, Param] = field(default_factory=dict)
    _behind: dict[Ref, Behind] = field(default_factory=dict)
    _random: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def follow(self, call: Call, given: Given) -> None:
        """Take a finished call and the tensors that it was given."""
        short = call.name.rpartition(".")[2]
        given = given[: READ.get(short, len(given))]
        behind = [self._of(ref) for ref, _ in given]
        whole = all(part is not None for part in behind)
        if whole:
            if short not in RANDOM:
                self._note(call, [part for part in behind if part is not None])
            if not any(part.leaves for part in behind if part is not None):
                return
        if short not in STATISTICS:
            overwritten = 1 if call.inplace else 0
            for (ref, tensor), part in itertools.islice(zip(given, behind, strict=True), overwritten, None):
                if part is not None and ref not in self.found:
                    self._look(ref, tensor, part, inside=whole)
                    self._look_below(call, ref, tensor)
                elif part is None and ref not in self.seen and _is_data(call, ref, tensor):
                    self._look_at_data(ref, tensor)

    def _of(self, ref: Ref) -> Behind | None:
        """What is behind a value; None where something that was fed in is."""
        if isinstance(ref.node, Call):
            return self._behind.get(ref)
        if ref.node.origin in ("buffer", "constant"):
            return None if ref.node.meta.requires_grad else NOTHING
        return Behind((ref.node,)) if ref.node.origin == "param" else None

    def _note(self, call: Call, parts: Sequence[Behind]) -> None:
        leaves = tuple(dict.fromkeys(leaf for part in parts for leaf in part.leaves))
        answered = all(part.answered for part in parts) and (not leaves or _answered(call))
        for number in (*range(len(call.outputs)), *((REBASED,) if call.rebased is not None else ())):
            ref = Ref(call, number)
            self._behind[ref] = Behind(leaves, answered) if ref.meta.requires_grad else NOTHING

    def _look(self, ref: Ref, tensor: torch.Tensor, behind: Behind, *, inside: bool) -> None:
        """Note what a tensor is; `inside` a computation from parameters only what is none itself."""
        if behind.leaves and (behind.answered or inside or tensor.is_complex()):
            return
        numbers = looked_at(tensor)
        if numbers is None:
            return
        found = Fixed(numbers)
        if behind.leaves:
            if not numbers.finite or (numbers.abs_max or 0.0) >= HIDING:
                return  # a mask was put over it: what is left of it is not known from its statistics
            answers = responses(tensor, behind.leaves, self._random)
            if answers is None:
                return
            found = replace(found, responses=answers)
        self.found[ref] = found

    def _look_below(self, call: Call, ref: Ref, tensor: torch.Tensor) -> None:
        """Note the inverse of what the call divides by: that of an average is not the average inverse."""
        found = self.found.get(ref)
        if tensor.is_complex() or found is None or found.responses:
            return
        if call.args[1:2] == (ref,) and _divides(call):
            inverse = looked_at(tensor.detach().double().reciprocal())
            if inverse is not None and inverse.finite:
                self.found[ref] = replace(found, inverse=inverse)

    def _look_at_data(self, ref: Ref, tensor: torch.Tensor) -> None:
        numbers = looked_at(tensor) if tensor.numel() <= INTEGERS_UP_TO else None
        if numbers is not None:
            self.seen[ref] = numbers


def _is_data(call: Call, ref: Ref, tensor: torch.Tensor) -> bool:
    """Whether a call reads what was computed from what was fed in as it is: a mask, or numbers without a gradient.

    Integers are numbers only to a loss: elsewhere they are indices.
    """
    if tensor.dtype is torch.bool:
        return True
    if tensor.requires_grad or not isinstance(ref.node, Call) or not any(meta.requires_grad for meta in call.outputs):
        return False
    entry = _entry(call)
    return tensor.is_floating_point() or tensor.is_complex() or (entry is not None and entry.kind == "loss")


def _answered(call: Call) -> bool:
    entry = _entry(call)
    quotient = _divides(call) and all(isinstance(part, Ref) for part in call.args[:2])
    return entry is not None and entry.kind in FOLLOWED and not quotient


def _divides(call: Call) -> bool:
    entry = _entry(call)
    return entry is not None and entry.function == "div"


def _entry(call: Call) -> Entry | None:
    return None if call.custom else vocabulary.lookup(call.name, call.name.rpartition(".")[2])


def looked_at(tensor: torch.Tensor) -> Param | None:
    """Statistics of a tensor's entries; of how often they are equal where they are integers.

    Of complex ones, those of their `parts`. None for a tensor on meta, of too many entries or of more than five axes
    that are longer than 1.
    """
    count = tensor.numel() * (2 if tensor.is_complex() else 1)
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or torch._C._functorch.is_functorch_wrapped_tensor(
        tensor
    ):
        return None
    if tensor.is_meta or tensor.layout is not torch.strided or not 0 < count <= ENTRIES_UP_TO:
        return None
    kind, tensor = dtype_name(tensor.dtype), tensor.detach()
    tensor = parts(tensor) if tensor.is_complex() else tensor
    shape = tuple(tensor.shape)
    if len(shape) > MAX_AXES:
        shape = tuple(size for size in shape if size > 1)
    if len(shape) > MAX_AXES:
        return None
    tensor = tensor.reshape(shape)
    if tensor.is_floating_point() or tensor.dtype is torch.bool:
        found = statistics("", tensor if tensor.is_floating_point() else tensor.float(), values=0)
        return replace(found, requires_grad=False, dtype=kind)
    if count > INTEGERS_UP_TO:
        return None
    sums = equal_pairs(tensor.cpu().numpy())
    return Param("", shape, kind, requires_grad=False, fan_in=1, fan_out=1, moments={"sums": sums})


def parts(tensor: torch.Tensor) -> torch.Tensor:
    """Re c + Im c and Re c − Im c of complex numbers c along a new last axis.

    E[p p′] over entries that share it is E[Re c c̄′], and over entries that do not E[Re c c′]: what a product with c
    makes of second moments (see `gradlint.signal.transfer_complex`).
    """
    double = tensor.to(torch.complex128)
    return torch.stack((double.real + double.imag, double.real - double.imag), -1)


def equal_pairs(entries: np.ndarray) -> dict[str, float]:
    """Pairs of equal entries that share the axes in S, in order, for every S: Σ over those axes and k of (count of k)².

    The same as the `sums` of `weight_moments` for the indicator of every number, added up.
    """
    _, kinds = np.unique(entries, return_inverse=True)
    kinds = kinds.reshape(entries.shape)
    several = int(kinds.max()) + 1
    sums = {}
    for kept in subsets(range(entries.ndim)):
        place = np.zeros((1,) * entries.ndim, np.int64)
        for axis in kept:
            along = np.arange(entries.shape[axis]).reshape([-1 if i == axis else 1 for i in range(entries.ndim)])
            place = place * entries.shape[axis] + along
        _, counts = np.unique(place * several + kinds, return_counts=True)
        sums["".join(map(str, kept))] = float((counts.astype(np.float64) ** 2).sum())
    return sums


def responses(
    tensor: torch.Tensor, leaves: Sequence[Leaf], random: torch.Generator
) -> dict[str, dict[str, float]] | None:
    """E[g²] of every parameter's gradient for a cotangent with independent unit entries along the axes in S.

    S, as digits, runs over the sets of axes; along the others such a cotangent is constant. The gradient of any
    cotangent is a sum of these (signs ±1 are drawn). None where autograd cannot go back.
    """
    known = [(leaf.path, leaf.tensor()) for leaf in leaves if leaf.tensor is not None]
    params = [(path, param) for path, param in known if param is not None and param.requires_grad]
    if not params or not tensor.requires_grad or sum(size > 1 for size in tensor.shape) > MAX_AXES:
        return None
    try:
        drawn = [(kept, squares) for kept, squares in _drawn(tensor, [param for _, param in params], random)]
    except RuntimeError:  # the graph was freed, or a tensor that it needs was changed since
        return None
    names = [path for path, _ in params]
    return {path: {kept: squares[place] for kept, squares in drawn} for place, path in enumerate(names)}


def _drawn(
    tensor: torch.Tensor, params: Sequence[torch.Tensor], random: torch.Generator
) -> Iterator[tuple[str, list[float]]]:
    axes = [axis for axis, size in enumerate(tensor.shape) if size > 1]
    for size in range(len(axes) + 1):
        for kept in itertools.combinations(axes, size):
            shape = [length if axis in kept else 1 for axis, length in enumerate(tensor.shape)]
            draws = 1 if not kept else DRAWS_OF_MANY if prod(shape) > MANY else DRAWS
            squares = np.zeros(len(params))
            for _ in range(draws):
                sign = torch.randint(0, 2, shape, generator=random).to(tensor) * 2 - 1
                grads = torch.autograd.grad(
                    tensor, params, sign.expand_as(tensor), retain_graph=True, allow_unused=True
                )
                squares += [0.0 if grad is None else float((grad.double() ** 2).mean()) for grad in grads]
            yield "".join(map(str, kept)), [float(square) / draws for square in squares]
