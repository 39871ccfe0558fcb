"""The ways in: a model or function with example inputs, or a torch.fx graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from gradlint.capture import copies
from gradlint.capture.convert import to_graph
from gradlint.capture.exported import GRAPHS, run_graph
from gradlint.capture.meta import is_on_meta, run_on_meta
from gradlint.capture.recorder import Intervention, Observer
from gradlint.capture.recorder import run as run_code
from gradlint.capture.recording import Recording
from gradlint.capture.sharded import is_sharded, lent
from gradlint.graph.ir import Graph


def run(
    model: Callable[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    record: bool = True,
    interventions: Iterable[Intervention] = (),
    observer: Observer | None = None,
    forward: Callable[..., Any] | None = None,
    opaque: bool = True,
) -> Recording:
    """Run a model once as `gradlint.capture.recorder.run` does; a graph node by node, so that places are known."""
    if isinstance(model, GRAPHS) and forward is None:
        options = {"record": record, "interventions": interventions, "observer": observer}
        return run_graph(model, args, dict(kwargs or {}), **options)
    return run_code(
        model,
        args,
        kwargs,
        record=record,
        interventions=interventions,
        observer=observer,
        forward=forward,
        opaque=opaque,
    )


def capture(
    model: Callable[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    observer: Observer | None = None,
    entry: str = "forward",
) -> tuple[Graph, Recording]:
    """Run a model once and return its graph and the recording; `Op.index` is the number of the call.

    `entry` is the method that is called.

    A copy is run that shares the parameters, and the random state is put back, so that the model stays as it was, but
    for lazy parameters, which are initialised. A model on the meta device is run there (`Coverage.method`
    "recorded-meta"). What the model raises passes through.
    """
    given = dict(kwargs or {})
    if isinstance(model, nn.Module) and copies.is_lazy(model):
        with copies.undisturbed(), torch.no_grad():
            model(*args, **given)
    if isinstance(model, nn.Module) and is_on_meta(model, args, given):
        recording = run_on_meta(model, args, given, observer)
        return to_graph(recording), recording
    with copies.undisturbed(), _spared(model) as copied:
        forward = None if entry == "forward" else getattr(copied, entry)
        recording = run(copied, args, given, observer=observer, forward=forward)
    return to_graph(recording), recording


@contextmanager
def _spared(model: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """What is run in the place of the model, which stays as it is."""
    if not isinstance(model, nn.Module):
        yield model
    elif is_sharded(model):
        with lent(model):
            yield model
    else:
        yield copies.sharing(model)


def from_fx(
    graph_module: fx.GraphModule, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
) -> tuple[Graph, Recording]:
    """Run a graph module (of `symbolic_trace`, or `torch.export.load(...).module()`) once and return its graph.

    Module paths, classes and lines are those of the nodes' metadata (`Coverage.method` "fx").
    """
    with copies.undisturbed():
        recording = run_graph(graph_module, args, kwargs or {}, record=True)
    return to_graph(recording), recording
