"""One trial of a plan: the model is run once, and what refused the inputs is written down."""

from __future__ import annotations

import contextlib
import io
import itertools
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gradlint.graph.ir import Span
from gradlint.load.feed_copy import stand_in
from gradlint.load.feed_cost import Cost
from gradlint.load.feed_plan import Plan, draw
from gradlint.load.meta import Answers

TORCH = str(Path(torch.__file__).parent)
HERE = str(Path(__file__).parent)
SOURCES = "_gradlint_sources"
INPUT = "_gradlint_input"
FLATTENED = "_gradlint_flattened"


@dataclass(frozen=True)
class Operand:
    """A tensor argument of a call; `sources` are the inputs that it was computed from, `flattened` its shape before."""

    shape: tuple[int, ...]
    dtype: str
    sources: frozenset[str]
    parameter: bool
    input: str = ""  # the input's path when it is the input itself
    flattened: tuple[int, ...] = ()


@dataclass(frozen=True)
class Call:
    """A torch call that was made, or that raised."""

    name: str
    operands: tuple[Operand, ...]
    arguments: tuple[object, ...]  # the arguments that are not tensors
    keywords: tuple[tuple[str, object], ...]


@dataclass(frozen=True)
class Frame:
    """The user's line that raised, and the variables there."""

    line: str
    variables: dict[str, object]
    function: str
    place: Span


@dataclass(frozen=True)
class Refusal:
    """Why a run ended: the exception, the torch call that raised it (if one did), and the user's line."""

    error: Exception
    call: Call | None
    frame: Frame | None

    @property
    def text(self) -> str:
        """The exception as one line."""
        return f"{type(self.error).__name__}: {' '.join(str(self.error).split())}"


@dataclass
class Seen:
    """What a run did with its inputs."""

    first: dict[str, Call] = field(default_factory=dict)  # the first call on each input itself
    first_shape: dict[str, tuple[int, ...]] = field(default_factory=dict)  # the shape of what that call returned
    bounds: list[tuple[int, frozenset[str], bool]] = field(default_factory=list)  # rows of a table, index's sources
    unbatched: set[str] = field(default_factory=set)  # inputs that a layer took for a single sample
    closed: set[str] = field(default_factory=set)  # masks that hid everything
    narrowest: int = 0  # the smallest image side after a convolution or a pooling
    calls: int = 0
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True)
class Trial:
    """The outcome of one run: `output`, or the `refusal`."""

    plan: Plan
    seen: Seen
    seconds: float
    output: object = None
    refusal: Refusal | None = None
    answered: int = 0


def attempt(model: nn.Module, plan: Plan, *, device: str = "cpu", seed: int = 0) -> Trial:
    """Run a shadow of the model on the plan. Nothing of the model, its buffers or the random state is changed.

    On meta, questions about values are answered with yes, and with no when that ends in a refusal.
    """
    if device != "meta":
        return _once(model, plan, device, seed, None)
    trial = _once(model, plan, device, seed, Answers())
    return (
        trial if trial.refusal is None or not trial.answered else _once(model, plan, device, seed, Answers(truth=False))
    )


def _once(model: nn.Module, plan: Plan, device: str, seed: int, answers: Answers | None) -> Trial:
    started = time.perf_counter()
    drawn = draw(plan, seed, device)
    watch = Watch(drawn.tensors)
    outcome = _run(model, drawn.args, drawn.kwargs, watch, answers, device)
    seconds = time.perf_counter() - started
    count = 0 if answers is None else answers.count
    if isinstance(outcome, Refusal):
        return Trial(plan, watch.seen, seconds, refusal=outcome, answered=count)
    return Trial(plan, watch.seen, seconds, output=outcome[0], answered=count)


def _run(
    model: nn.Module,
    args: tuple[object, ...],
    kwargs: dict[str, object],
    watch: Watch,
    answers: Answers | None,
    device: str,
) -> tuple[object] | Refusal:
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(quiet())
            stack.enter_context(torch.random.fork_rng(devices=[]))
            runner = stack.enter_context(stand_in(model, device))
            stack.callback(nn.modules.module.register_module_forward_pre_hook(watch.entered).remove)
            if answers is not None:
                stack.enter_context(torch.device("meta"))
                stack.enter_context(answers)
            stack.enter_context(watch)
            return (runner(*args, **kwargs),)
    except Exception as error:  # noqa: BLE001 the user's forward may raise anything; it is the answer
        return Refusal(error, watch.raised(error), _frame(error.__traceback__))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Trials print nothing and warn of nothing: the run that counts comes later."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _frame(trace: TracebackType | None) -> Frame | None:
    """The innermost frame that is neither torch's nor ours."""
    found: Frame | None = None
    for frame, number in traceback.walk_tb(trace):
        name = frame.f_code.co_filename
        if not name.startswith((TORCH, HERE, "<frozen")):
            summary = traceback.FrameSummary(name, number, frame.f_code.co_name)
            place = Span(name, number)
            found = Frame(summary.line or "", dict(frame.f_locals), frame.f_code.co_name, place)
    return found


def tensors_in(value: object, depth: int = 3) -> Iterator[Tensor]:
    """The tensors of a nest of lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item, depth - 1)
    elif depth and isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item, depth - 1)


def sources_of(tensor: Tensor) -> frozenset[str]:
    """The paths of the inputs that the tensor was computed from in this trial."""
    found: frozenset[str] = tensor.__dict__.get(SOURCES, frozenset())
    return found


class Watch(TorchFunctionMode):
    """Follows every input through the run and remembers the call that raised."""

    def __init__(self, inputs: dict[str, Tensor]) -> None:
        super().__init__()
        self.seen = Seen()
        self._raised: tuple[BaseException, Call] | None = None
        for path, tensor in inputs.items():
            tensor.__dict__[SOURCES] = frozenset((path,))
            tensor.__dict__[INPUT] = path

    def raised(self, error: BaseException) -> Call | None:
        """The torch call that raised this exception, unless user code did."""
        if self._raised is None or self._raised[0] is not error:
            return None
        return self._raised[1]

    def __torch_function__(
        self, func: object, types: object, args: tuple[object, ...] = (), kwargs: dict[str, object] | None = None
    ) -> object:
        kwargs = kwargs or {}
        assert callable(func)
        try:
            output = func(*args, **kwargs)
        except Exception as error:
            if self._raised is None or self._raised[0] is not error:
                self._raised = (error, _call(func, args, kwargs))
            raise
        self._follow(func, args, kwargs, output)
        return output

    def _follow(self, func: object, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> None:
        made = list(tensors_in(output))
        if not made:
            return
        self.seen.calls += 1
        taken = [*tensors_in(args), *tensors_in(kwargs)]
        self.seen.cost.add(_name(func), taken, made)
        sources = frozenset(itertools.chain.from_iterable(map(sources_of, taken)))
        if not sources:
            return
        name = _name(func)
        self._note(name, func, args, kwargs, taken, made[0])
        for tensor in made:
            _mark(tensor, sources, taken[0])

    def _note(
        self,
        name: str,
        func: object,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        taken: list[Tensor],
        made: Tensor,
    ) -> None:
        for tensor in taken:
            path = tensor.__dict__.get(INPUT)
            if path is not None and path not in self.seen.first and name not in ("to", "float", "contiguous", "long"):
                self.seen.first[path] = _call(func, args, kwargs)
                self.seen.first_shape[path] = tuple(made.shape)
        noter = NOTERS.get(name)
        if noter is not None:
            noter(self.seen, args, kwargs, made)

    def entered(self, module: nn.Module, args: tuple[object, ...]) -> None:
        """Before a layer runs: does it take its input for one sample without a batch axis?"""
        rank = next((rank for kind, rank in SINGLE if isinstance(module, kind)), 0)
        if rank and args and isinstance(args[0], Tensor) and args[0].dim() == rank:
            self.seen.unbatched.update(sources_of(args[0]))


SINGLE: tuple[tuple[type[nn.Module] | tuple[type[nn.Module], ...], int], ...] = (
    (nn.RNNBase, 2),
    ((nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer), 2),
    ((nn.Conv1d, nn.ConvTranspose1d), 2),
    ((nn.Conv2d, nn.ConvTranspose2d), 3),
    ((nn.Conv3d, nn.ConvTranspose3d), 4),
    (nn.RNNCellBase, 1),
)


def _mark(tensor: Tensor, sources: frozenset[str], parent: Tensor) -> None:
    notes = tensor.__dict__
    notes[SOURCES] = sources | notes.get(SOURCES, frozenset())
    if tensor is not parent:
        notes.pop(INPUT, None)
    if tensor.dim() < parent.dim():
        notes[FLATTENED] = tuple(parent.shape)
    elif FLATTENED in parent.__dict__ and tensor.dim() == parent.dim():
        notes[FLATTENED] = parent.__dict__[FLATTENED]


def _name(func: object) -> str:
    """What a torch function is called, without the overload of an operator: "linear" of `aten.linear.default`."""
    return str(getattr(func, "__name__", "")).partition(".")[0]


def _call(func: object, args: tuple[object, ...], kwargs: dict[str, object]) -> Call:
    taken = [*tensors_in(args), *tensors_in(kwargs)]
    plain = tuple(arg for arg in args if not isinstance(arg, Tensor))
    return Call(_name(func), tuple(map(operand_of, taken)), plain, tuple(kwargs.items()))


def operand_of(tensor: Tensor) -> Operand:
    """What is known of a tensor that a call takes, or that stands in the user's frame."""
    notes = tensor.__dict__
    return Operand(
        tuple(tensor.shape),
        str(tensor.dtype).removeprefix("torch."),
        notes.get(SOURCES, frozenset()),
        isinstance(tensor, nn.Parameter),
        notes.get(INPUT, ""),
        notes.get(FLATTENED, ()),
    )


def _note_lookup(seen: Seen, args: tuple[object, ...], kwargs: dict[str, object], made: Tensor) -> None:
    """Rows of a table that is indexed: embedding(ids, table), table[ids], one_hot(ids, n)."""
    first, second = (*args, *kwargs.values(), None, None)[:2]
    if isinstance(first, Tensor) and not first.is_floating_point() and isinstance(second, Tensor):
        _bound(seen, second.shape[0] if second.dim() > 1 else 0, first)
    elif isinstance(first, Tensor) and isinstance(second, int) and not isinstance(second, bool):
        _bound(seen, second, first)


def _note_index(seen: Seen, args: tuple[object, ...], kwargs: dict[str, object], made: Tensor) -> None:
    table, index = (*args, *kwargs.values(), None, None)[:2]
    if not isinstance(table, Tensor) or not isinstance(index, Tensor) or sources_of(table):
        return
    if table.dim() and not index.is_floating_point() and index.dtype != torch.bool:
        _bound(seen, table.shape[0], index)


def _bound(seen: Seen, rows: int, index: Tensor) -> None:
    if rows > 0 and sources_of(index):
        seen.bounds.append((rows, sources_of(index), INPUT in index.__dict__))


def _note_side(seen: Seen, args: tuple[object, ...], kwargs: dict[str, object], made: Tensor) -> None:
    if made.dim() == 4 and isinstance(args[0], Tensor) and min(args[0].shape[-2:]) > 1:  # not a squeeze-and-excite gate
        side = min(made.shape[-2:])
        seen.narrowest = min(seen.narrowest or side, side)


def _note_fill(seen: Seen, args: tuple[object, ...], kwargs: dict[str, object], made: Tensor) -> None:
    """masked_fill(scores, mask, -1e9): a mask that is true everywhere hides everything."""
    operands = list(tensors_in([*args, *kwargs.values()]))
    value = next((v for v in (*args, *kwargs.values()) if isinstance(v, (int, float))), 0.0)
    mask = next((t for t in operands if t.dtype == torch.bool), None)
    if mask is not None and not mask.is_meta and value < -1e3 and mask.numel() and bool(mask.all()):
        seen.closed.update(sources_of(mask))


def _note_classes(seen: Seen, args: tuple[object, ...], kwargs: dict[str, object], made: Tensor) -> None:
    """cross_entropy(scores, target): targets are below the number of classes."""
    scores, target = (*args, *kwargs.values(), None, None)[:2]
    if isinstance(scores, Tensor) and isinstance(target, Tensor) and not target.is_floating_point():
        _bound(seen, scores.shape[1 if scores.dim() > 1 else 0], target)


NOTERS = {
    "embedding": _note_lookup,
    "embedding_bag": _note_lookup,
    "one_hot": _note_lookup,
    "__getitem__": _note_index,
    "conv2d": _note_side,
    "max_pool2d": _note_side,
    "avg_pool2d": _note_side,
    "masked_fill": _note_fill,
    "masked_fill_": _note_fill,
    "cross_entropy": _note_classes,
    "nll_loss": _note_classes,
}


def all_tensors(output: object, depth: int = 4) -> Iterable[Tensor]:
    """The tensors of an output, looking into objects with fields too (transformers outputs, dataclasses)."""
    if isinstance(output, (Tensor, list, tuple, dict)):
        yield from tensors_in(output, depth)
    elif hasattr(output, "__dict__"):
        yield from tensors_in(vars(output), depth)
