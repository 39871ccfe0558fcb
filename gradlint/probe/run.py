"""One forward and backward pass on a copy of the model, recorded or replayed, with every statistic taken."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from gradlint.capture import Intervention, Names, Recording, run, to_graph
from gradlint.capture.copies import is_lazy
from gradlint.capture.frames import USER, rank
from gradlint.capture.sharded import is_sharded
from gradlint.capture.structure import Named, arguments
from gradlint.error import ForwardError, GradlintError, ProbeError
from gradlint.graph.ir import Graph, Span
from gradlint.graph.memo import remembered
from gradlint.probe import loss as losses
from gradlint.probe import parameters
from gradlint.probe.agreement import Batch, split
from gradlint.probe.assembly import INPUT, Seen, Tables, assemble
from gradlint.probe.budget import spilled
from gradlint.probe.collector import Collector
from gradlint.probe.isolation import ParamEdit, copy_inputs, edit, measured, undisturbed
from gradlint.probe.ledger import HALF, log_rms, log_spread
from gradlint.probe.sites import Key
from gradlint.profile import Measurement

# What a model's own error asks for, by a piece of its message.
HINTS: tuple[tuple[str, str], ...] = (
    (
        r"Expected more than 1 (value per channel|spatial element)",
        "a norm needs more values: give a batch of 2 or more",
    ),
    (r"mat1 and mat2 shapes cannot be multiplied|expected input\[.*\] to have \d+ channels", "give the shape: --input"),
    (
        r"expected scalar type (Long|Int)|must be .*LongTensor|Expected tensor for argument #1 'indices'",
        "--input int64",
    ),
    (
        r"index out of range in self|device-side assert",
        "token ids reach past the embedding: bound them, int64[8,16]<100",
    ),
    (r"out of memory|not enough memory", "give a smaller input, or --device cpu"),
    (r"missing \d+ required positional argument", "give every input: repeat --input"),
    (r"Expected all tensors to be on the same device", "the model makes tensors on another device: --device cpu"),
)
T = TypeVar("T")
REPLICATED = frozenset({"DataParallel", "DistributedDataParallel"})
INPLACE = "modified by an inplace operation"


class Loaded(Protocol):
    """What is needed of a `gradlint.load.LoadedModel`."""

    model: nn.Module
    args: tuple[object, ...]
    kwargs: dict[str, object]


@dataclass(frozen=True)
class Plan:
    """How one pass is run. `loss` was told; `hint` is a loss the user's file applies, dropped where it does not fit."""

    device: torch.device
    dtype: torch.dtype | None = None  # None: as the model has it
    loss: str | None = None
    hint: str | None = None
    seed: int = 0
    graph: Graph | None = None  # replayed instead of recording
    interventions: tuple[Intervention, ...] = ()
    edits: tuple[ParamEdit, ...] = ()
    redrawn: bool = False  # the model is another one than the graph was recorded from: its weights are measured anew
    autocast: torch.dtype | None = None  # forward under torch.autocast; parameters and inputs stay as they are
    loss_scale: float = 1.0
    entry: str = "forward"  # the method that is called; a LightningModule's "training_step" computes the loss itself
    parts: int = 1  # micro-batches, whose parameter gradients are averaged; all else is that of the first one
    spill: bool = False  # keep what autograd saves out of memory
    ranges: bool = False  # note the peak and the share of zeros of every gradient, and the bounds of every activation


def target_of(loaded: object) -> object:
    """What a batch of the user's own holds besides the inputs; None where targets are drawn."""
    return getattr(loaded, "target", None)


@dataclass
class Pass:
    """A finished pass: its graph, the numbers that came over from the device, the loss and its gradients."""

    graph: Graph
    tables: Tables
    names: Names
    loss: losses.Value | None
    gradients: Mapping[str, Tensor]  # of the parameters that got one


def once(loaded: Loaded, plan: Plan) -> tuple[Graph, Measurement]:
    """The graph and the measurement of one pass in train mode; the model and the process are left as they were.

    Raises ForwardError when the model raises, ProbeError when there is no way to copy, differentiate or score it.
    """
    done = passed(loaded, plan)
    return done.graph, assemble(done.graph, seen(done, plan))


def seen(done: Pass, plan: Plan) -> Seen:
    """What a finished pass showed, as `assemble` takes it."""
    return Seen(done.tables, done.names.params, done.loss, plan.seed, str(plan.device), _dtype_name(done.names))


def passed(loaded: Loaded, plan: Plan) -> Pass:
    """One pass of a copy of the model, as numbers by call; raises as `once` does."""
    with (
        undisturbed(plan.seed, plan.device),
        _default_dtype(plan.dtype),
        measured(loaded.model, plan.device, plan.dtype, changed=bool(plan.edits)) as model,
    ):
        args = copy_inputs(loaded.args, plan.device, plan.dtype)
        kwargs = copy_inputs(loaded.kwargs, plan.device, plan.dtype)
        if is_lazy(model):
            shape_lazy(model, loaded, plan)
        target = copy_inputs(target_of(loaded), plan.device, plan.dtype)
        names = Names(model)
        edit(names, plan.edits)
        torch.manual_seed(plan.seed)
        return step(model, args, kwargs, names, plan, target)


def step(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    names: Names,
    plan: Plan,
    target: object = None,
) -> Pass:
    """Forward, loss and backward, and one transfer of what was measured: what `benchmarks/probe.py` times."""
    whole = (tuple(args), dict(kwargs), target)
    (args, kwargs, target), *others = (split(whole, most=plan.parts, least=1) if plan.parts > 1 else []) or [whole]
    if _steps(plan.graph) if plan.graph is not None else any(isinstance(m, nn.RNNBase) for m in model.modules()):
        args, kwargs = _differentiable(args), _differentiable(kwargs)
    inputs = arguments(tuple(args), kwargs)
    collector = Collector(_batch(inputs), plan.graph, ranges=plan.ranges)
    for position, (_, tensor) in enumerate(inputs):
        collector.on_input((INPUT, position), tensor)
    with spilled(active=plan.spill):
        with _autocast(plan):
            recording = _forward(model, args, kwargs, collector, plan)
        if (plan.redrawn or plan.autocast) and plan.graph is not None and recording.calls != len(plan.graph.ops):
            raise ProbeError("the run took another way than the recorded one")
        graph, names = plan.graph or to_graph(recording), recording.names or names
        _between(collector, graph, inputs, together=not others and _together(model, names, graph))
        value = loss_of(recording, graph, plan, target)
        with parameters.watched(collector.ledger, {} if others else names.params) as done:
            gradients = {} if value is None else _backward(collector, value, names, plan)
    if others and value is not None:
        gradients = _accumulate(model, names, others, graph, plan, mean=value.name != "unit")
    edited = set(names.params) if plan.redrawn else {change.path for change in plan.edits}
    weights = edited | set(names.params) - set(graph.params)
    parameters.measure(collector.ledger, names.params, gradients, weights, done)
    if value is not None:
        _output(collector, value)
    return Pass(graph, collector.ledger.read(), names, value, gradients)


def _between(collector: Collector, graph: Graph, inputs: list[Named], *, together: bool) -> None:
    """What there is to do between the forward and the backward pass."""
    gradients = collector.gradients
    gradients.timed = _steps(graph)
    for call, position in gradients.timed:
        if call == INPUT:
            gradients.expect((call, position), inputs[position][1])
    collector.forward_done(graph)
    if not together:
        gradients.hook()


def _together(model: nn.Module, names: Names, graph: Graph) -> bool:
    """Whether gradients can be asked for by name, in place of having them accumulated.

    The engine then neither runs what waits for a parameter's accumulated gradient, nor sees a backward pass within the
    backward pass, as some custom functions make one.
    """
    waiting = any(param._post_accumulate_grad_hooks for param in names.params.values())
    return not waiting and not is_opaque(graph) and not is_sharded(model)


def _accumulate(
    model: nn.Module, names: Names, others: list[Batch], graph: Graph, plan: Plan, *, mean: bool
) -> dict[str, Tensor]:
    """Add the gradients of the other parts of the batch, or make theirs and the first one's the mean; gives them."""
    for args, kwargs, target in others:
        with spilled(active=plan.spill), _autocast(plan):
            again(model, args, kwargs, target, graph, plan)
    for param in model.parameters() if mean else ():
        if param.grad is not None:
            param.grad /= len(others) + 1
    return {path: param.grad for path, param in names.params.items() if param.grad is not None}


def again(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], target: object, graph: Graph, plan: Plan
) -> losses.Value | None:
    """One more forward and backward in which nothing is measured: gradients are added to those that are there.

    None when no output requires a gradient. Raises ForwardError when the model raises.
    """
    try:
        recording = run(
            model,
            args,
            kwargs,
            record=False,
            interventions=plan.interventions,
            forward=entry(model, plan.entry),
            opaque=is_opaque(graph),
        )
    except GradlintError:
        raise
    except Exception as error:
        raise forward_error(error) from error
    value = loss_of(recording, graph, plan, target)
    if value is not None:
        backward(_scaled(value, plan), Tensor.backward)
    return value


def _scaled(value: losses.Value, plan: Plan) -> Tensor:
    return value.total if plan.loss_scale == 1.0 else value.total * plan.loss_scale


def _backward(collector: Collector, value: losses.Value, names: Names, plan: Plan) -> dict[str, Tensor]:
    return backward(_scaled(value, plan), lambda total: collector.gradients.backward(total, names.params))


def shape_lazy(model: nn.Module, loaded: Loaded, plan: Plan) -> None:
    """Run the copy once, so that its lazy parameters get their shapes and are drawn."""
    args = copy_inputs(loaded.args, plan.device, plan.dtype)
    kwargs = copy_inputs(loaded.kwargs, plan.device, plan.dtype)
    try:
        with torch.no_grad():
            (entry(model, plan.entry) or model)(*args, **kwargs)
    except Exception as error:
        raise forward_error(error) from error


def _forward(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], collector: Collector, plan: Plan
) -> Recording:
    try:
        return run(
            model,
            args,
            kwargs,
            record=plan.graph is None,
            interventions=plan.interventions,
            observer=collector,
            forward=entry(model, plan.entry),
            opaque=plan.graph is None or is_opaque(plan.graph),
        )
    except GradlintError:
        raise
    except Exception as error:
        if _is_own(error):
            raise
        raise forward_error(error) from error


@remembered
def is_opaque(graph: Graph) -> bool:
    """Whether a run of the graph calls custom autograd functions, or scripted or replicated modules."""
    return any(op.kind == "custom" for op in graph.ops) or any(m.type in REPLICATED for m in graph.modules)


def entry(model: nn.Module, name: str) -> Callable[..., Any] | None:
    """The method to call in place of the model itself, or None."""
    return None if name == "forward" else getattr(model, name)


def _is_own(error: Exception) -> bool:
    """Whether the error came out of this package's own observer, not out of the model."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return Path(last.filename).is_relative_to(Path(__file__).parent)


def forward_error(error: Exception) -> ForwardError:
    """The model's own error as one line with a hint and the user's line that raised."""
    text = str(error).strip().splitlines()
    message = f"the model's forward raised {type(error).__name__}: {text[0] if text else ''}".rstrip(": ")
    hint = next((hint for pattern, hint in HINTS if re.search(pattern, str(error))), "")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if rank(frame.filename) == USER]
    return ForwardError(message, hint, Span(frames[-1].filename, frames[-1].lineno or 1) if frames else None)


def loss_of(recording: Recording, graph: Graph, plan: Plan, target: object) -> losses.Value | None:
    """The loss of a run, as the plan tells it; None when no output requires a gradient.

    Raises ProbeError when it does not fit.
    """

    def compute(name: str | None) -> losses.Value | None:
        random = torch.Generator().manual_seed(plan.seed)
        outputs = recording.outputs if plan.autocast is None else [(key, _full(t)) for key, t in recording.outputs]
        custom = name is not None and ":" in name  # the user's own runs as in their training loop
        with _autocast(plan) if custom else nullcontext():
            return losses.compute(recording.output, outputs, graph, random, name, target)

    if plan.loss is None and plan.hint is not None:
        try:
            return compute(plan.hint)
        except ProbeError:  # the file has several losses, or applies it to something else
            return compute(None)
    return compute(plan.loss)


def _full(tensor: Tensor) -> Tensor:
    """In single precision, as autocast itself hands an output to the losses."""
    return tensor.float() if tensor.dtype in HALF else tensor


def backward(total: Tensor, through: Callable[[Tensor], T]) -> T:
    """Backpropagate through a function. Raises ProbeError where the graph of autograd is broken."""
    try:
        return through(total)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0]
        hint = "the model changes a tensor in place that its gradient needs" if INPLACE in first else ""
        raise ProbeError(f"the backward pass raised: {first}", hint) from error


def _output(collector: Collector, value: losses.Value) -> None:
    """Note the loss, and RMS and spread between samples of the output it is about."""
    ledger, main = collector.ledger, value.main
    ledger.put("output", ["loss"], value.total.detach().reshape(1))
    if main is None:
        return
    main = main.detach()
    log_rms(ledger, "output", "rms", main)
    if main.ndim and main.shape[0] > 1:
        log_spread(ledger, "output", "spread", main)


@remembered
def _steps(graph: Graph) -> dict[Key, int]:
    """The inputs of recurrent ops whose gradient is to be told apart by time step, and the axis of the steps."""
    found: dict[Key, int] = {}
    for op in graph.ops:
        value = graph.operand(op, "input") if op.kind == "recurrent" else None
        if value is None or op.attrs.get("cell") or op.attrs.get("packed") or len(value.shape) < 2:
            continue
        axis = 1 if op.attrs.get("batch_first") and len(value.shape) == 3 else 0
        producer = graph.op_of(value.id)
        if producer is not None:
            found[producer.index, producer.outputs.index(value.id)] = axis
        elif value.id in graph.inputs:
            found[INPUT, graph.inputs.index(value.id)] = axis
    return found


def _differentiable(value: Any) -> Any:
    """The inputs with floating tensors that get a gradient; copies of leaves, so that in-place ops may hit them."""
    if isinstance(value, Tensor):
        return value.requires_grad_().clone() if value.is_floating_point() else value
    if type(value) in (list, tuple):
        return type(value)(_differentiable(item) for item in value)
    if type(value) is dict:
        return {key: _differentiable(item) for key, item in value.items()}
    return value


def _batch(inputs: list[Named]) -> int:
    return next((tensor.shape[0] for _, tensor in inputs if tensor.ndim), 1)


def _dtype_name(names: Names) -> str:
    dtypes = (param.dtype for param in names.params.values())
    return str(next(dtypes, torch.get_default_dtype())).removeprefix("torch.")


def _autocast(plan: Plan) -> AbstractContextManager[object]:
    if plan.autocast is None:
        return nullcontext()
    return torch.autocast(plan.device.type, plan.autocast)


@contextmanager
def _default_dtype(dtype: torch.dtype | None) -> Iterator[None]:
    """Make the model's own factories (`torch.zeros`) produce this dtype for the block."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(before if dtype is None else dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
