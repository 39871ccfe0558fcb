"""Example inputs for a model: the user's, else what the model or its file states, else inferred by running it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from torch import nn

from gradlint.error import ForwardError, GradlintError, InputError, UsageError
from gradlint.load.feed_own import own_plans
from gradlint.load.feed_plan import Group, Guess, Node, Plan, describe, draw
from gradlint.load.feed_trial import Trial
from gradlint.load.infer import Search
from gradlint.load.infer_context import Context, context
from gradlint.load.infer_finish import finished, own_loss
from gradlint.load.infer_layers import device_of
from gradlint.load.infer_repair import Change
from gradlint.load.infer_start import starts
from gradlint.load.spec import InputSpec, Values, parse, parse_all
from gradlint.result import InputUsed
from gradlint.source.examples import ShapeHint, SourceHints

STATED_TRIALS = 24
MOST_TRIALS = 120

Arguments = tuple[tuple[object, ...], dict[str, object]]


class InputSettings(Protocol):
    """The part of gradlint.config.Settings that is read here."""

    @property
    def inputs(self) -> Sequence[str]:
        """The raw texts of --input."""
        ...


@dataclass(frozen=True)
class Feed:
    """Example inputs. `draw(seed)` makes fresh entries for a data seed; `loss` is "own" when the output holds one."""

    args: tuple[object, ...]
    kwargs: dict[str, object]
    inputs: tuple[InputUsed, ...]
    draw: Callable[[int], Arguments]
    notes: tuple[str, ...] = ()
    loss: str | None = None


def feed(model: nn.Module, settings: InputSettings, hints: SourceHints | None = None, *, seconds: float = 30.0) -> Feed:
    """Example inputs that the model's forward accepts in train mode, on the model's own device (meta stays on meta).

    Nothing of the model or the random state changes. `seconds` bounds the search. Raises UsageError for a spec that
    does not read or names no argument, InputError when nothing was found that the model accepts, and ForwardError when
    its own code raises.
    """
    known = context(model)
    specs = parse_all(settings.inputs)
    given = _given(known, specs)
    search = Search(model, known, seconds, fixed=frozenset(given))
    for source, trials, plans in _sources(known, given, hints or SourceHints()):
        accepted = search.run(plans, trials)
        if accepted is not None:
            return _feed(search, finished(search, accepted), source, frozenset(given))
    if not given and model.training:
        return _in_eval_mode(model, settings, hints, seconds, search)
    raise _nothing_fits(search, specs)


def _in_eval_mode(
    model: nn.Module, settings: InputSettings, hints: SourceHints | None, seconds: float, failed: Search
) -> Feed:
    """The last resort, for a model whose training needs more than was found. Leaves the model in the mode that runs."""
    model.eval()
    try:
        found = feed(model, settings, hints, seconds=seconds / 2)
    except InputError as error:
        model.train()
        raise _nothing_fits(failed, ()) from error
    return replace(found, notes=(*found.notes, "no inputs were found that it trains on: it ran in eval mode"))


def _sources(known: Context, given: dict[str, Node], hints: SourceHints) -> Iterator[tuple[str, int, Iterator[Change]]]:
    """Where plans come from, most trusted first: what a report calls it, how many trials it is worth, the plans."""
    if given:
        yield "guessed", MOST_TRIALS, _completed(known, given)
        return
    yield "example", STATED_TRIALS, own_plans(known)
    yield "example", STATED_TRIALS, _hinted(known, hints)
    yield "guessed", MOST_TRIALS, starts(known)


def _given(known: Context, specs: tuple[InputSpec, ...]) -> dict[str, Node]:
    """The specs by argument: named ones where they say, unnamed ones at the next free positions."""
    positions = [a.name for a in known.arguments if not a.keyword and not a.several]
    named = {spec.name.partition(".")[0] for spec in specs if spec.name}
    _check_names(known, named)
    free = iter([*(name for name in positions if name not in named), *map(str, range(len(specs)))])
    given: dict[str, Node] = {}
    for spec in specs:
        guess = Guess("given", spec.shape, spec.dtype, spec.values)
        head, _, rest = spec.name.partition(".")
        if rest:
            given[head] = _with_member(given.get(head), rest, guess)
        else:
            given[head or next(free)] = guess
    return given


def _check_names(known: Context, named: set[str]) -> None:
    accepted = [a.name for a in known.arguments]
    unknown = sorted(named - set(accepted))
    if unknown and not known.extra:
        raise UsageError(
            f"--input {unknown[0]!r}: {type(known.model).__name__}.forward has no such argument",
            f"it takes {', '.join(accepted) or 'none'}",
        )


def _with_member(group: Node | None, key: str, guess: Guess) -> Group:
    members = group.members if isinstance(group, Group) else ()
    return Group("dict", (*members, (key, guess)))


def _completed(known: Context, given: dict[str, Node]) -> Iterator[Change]:
    """The given inputs, and a guess for every required argument that was not given."""
    first = next((n.axes[0] for n in given.values() if isinstance(n, Guess) and n.axes), None)
    batch = {"B": first} if isinstance(first, int) else {}
    rest = replace(known, arguments=tuple(a for a in known.arguments if a.name not in given and a.required))
    missing = bool([a for a in rest.arguments if not a.several])
    plans = starts(rest) if missing else iter([(0.0, known.plan({}))])
    for cost, plan in plans:
        yield cost, _in_order(known, {**dict(plan.arguments), **given}, plan.resized(**batch))


def _in_order(known: Context, arguments: dict[str, Node], plan: Plan) -> Plan:
    """The arguments in forward's order; those after a gap, and keyword-only ones, are passed by keyword."""
    order = {a.name: i for i, a in enumerate(known.arguments)}
    names = sorted(arguments, key=lambda name: order.get(name, len(order)))
    gap = next((i for i, name in enumerate(names) if name in order and order[name] != i), len(names))
    keyed = {a.name for a in known.arguments if a.keyword} | {n for n in names[gap:] if not n.isdigit()}
    return replace(
        plan, arguments=tuple((name, arguments[name]) for name in names), keywords=frozenset(keyed & set(names))
    )


def _hinted(known: Context, hints: SourceHints) -> Iterator[Change]:
    """The calls of the model that its file makes, then single shapes that it mentions."""
    names = [a.name for a in known.arguments if not a.several]
    required = [a.name for a in known.arguments if a.required and not a.several]
    for rank, call in enumerate(hints.calls):
        arguments = _by_argument(names, call)
        if set(required) <= set(arguments):
            yield 0.1 * rank, _in_order(known, arguments, known.plan({}))
    for rank, hint in enumerate(hints.shapes if len(required) == 1 else ()):
        for base, plan in _shaped(known, hint):
            yield 0.5 + base + 0.1 * rank, plan


def _by_argument(names: list[str], call: tuple[ShapeHint, ...]) -> dict[str, Node]:
    """The tensors of a call by the argument that each is passed as."""
    positions = (*names, *map(str, range(len(names), len(call))))
    return {hint.name or positions[place]: _hint(hint) for place, hint in enumerate(call)}


SYMBOLS = {
    **dict.fromkeys(("n", "b", "batch", "batch_size", "bs", "bsz"), "B"),
    **dict.fromkeys(("t", "l", "seq", "seq_len", "time", "steps", "length", "s", "p"), "T"),
    **dict.fromkeys(("h", "w", "height", "width"), "S"),
}


def _hint(hint: ShapeHint) -> Guess:
    """A tensor as the file writes it; its first dimension is taken for the batch."""
    axes = tuple(SYMBOLS.get(axis.lower(), "T") if isinstance(axis, str) else axis for axis in hint.shape)
    batch = ("B", *axes[1:]) if len(axes) > 1 and isinstance(axes[0], int) else axes
    whole = "int" in hint.dtype
    said = parse(f"float32[1]{hint.values}").values if hint.values else None
    values = Values("integers", 0, hint.high) if whole and hint.high else said
    role = "ids" if whole else {4: "image", 3: "sequence", 2: "vector"}.get(len(axes), "given")
    return Guess(role, batch, hint.dtype or "float32", values)


def _shaped(known: Context, hint: ShapeHint) -> Iterator[Change]:
    for cost, plan in starts(known):
        (name, node), *_ = plan.arguments
        if isinstance(node, Guess) and cost == 0.0:
            guess = _hint(hint)
            dtype = hint.dtype or node.dtype
            yield (
                0.0,
                plan.put(name, replace(guess, dtype=dtype, role=node.role if dtype == node.dtype else guess.role)),
            )


def _feed(search: Search, trial: Trial, source: str, given: frozenset[str]) -> Feed:
    device = device_of(search.model)

    def fresh(seed: int) -> Arguments:
        drawn = draw(trial.plan, seed, device)
        return drawn.args, drawn.kwargs

    args, kwargs = fresh(0)
    return Feed(
        args, kwargs, _used(trial.plan, source, given), fresh, _notes(search, trial), "own" if own_loss(trial) else None
    )


def _used(plan: Plan, source: str, given: frozenset[str]) -> tuple[InputUsed, ...]:
    return tuple(
        InputUsed(
            path,
            plan.shape(guess),
            guess.dtype if guess.role == "given" or guess.dtype != "float32" else plan.floating,
            "cli" if path.partition(".")[0] in given else source,
            describe(guess),
        )
        for path, guess in plan.leaves().items()
    )


def _notes(search: Search, trial: Trial) -> tuple[str, ...]:
    if not (trial.answered and search.on_meta):
        return ()
    return (
        f"{trial.answered} questions about values were answered by assumption, as the model has no numbers on meta",
    )


def _nothing_fits(search: Search, specs: tuple[InputSpec, ...]) -> GradlintError:
    """What was tried last, the model's own message, its line, and a line to give.

    What the model itself raises, and not a torch call that the inputs do not fit, is an error of its forward.
    """
    model = type(search.model).__name__
    trial = search.last
    if trial is None or trial.refusal is None:
        return InputError(f"no inputs were found for {model}", f"give them: {example_line(search.known, None)}")
    tried = ", ".join(f"{p}={g.dtype}{list(trial.plan.shape(g))}" for p, g in trial.plan.leaves().items())
    said, frame = trial.refusal.text, trial.refusal.frame
    place = frame.place if frame is not None else None
    give = f"give them: {example_line(search.known, trial.plan)}"
    if trial.refusal.call is None and frame is not None:
        hint = "check --input against forward" if specs else f"if it is the inputs, {give}"
        given = f" (with {tried})" if tried else ""
        return ForwardError(f"the forward of {model} raised {said}{given}", hint, place)
    if specs:
        return InputError(f"{model} does not accept {tried}: {said}", "check --input against forward", place)
    tries = f"no inputs were found that {model} accepts ({search.trials} tried)"
    return InputError(f"{tries}; the last was {tried}: {said}", give, place)


def example_line(known: Context, plan: Plan | None) -> str:
    """A `--input` line for the arguments of forward, in the shapes that were tried last."""
    if plan is None or not plan.leaves():
        names = [a.name for a in known.arguments] or ["x"]
        return f"--input '{names[0]}=float32[8,16]'"
    specs = (InputSpec(g.dtype, plan.shape(g), path, g.values) for path, g in plan.leaves().items())
    return " ".join(f"--input '{spec}'" for spec in specs)
