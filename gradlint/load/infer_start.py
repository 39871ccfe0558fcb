"""The first plans: what each argument of forward is, by its name, its annotation and the model's first layers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from torch import nn

from gradlint.load.feed_plan import Axis, Constant, Group, Guess, Node, Plan
from gradlint.load.infer_layers import entry_guesses, floating_of, stated_sides

SIZES = {"B": 6, "T": 24, "S": 64, "L": 256, "D": 8, "N": 30, "E": 90}
"""Batch, steps, image side, signal length, depth, nodes, edges: numbers that are rarely the width of a layer."""

# what a parameter's name says: (role, words of the snake-case name); the first row with a match wins
NAMES: tuple[tuple[str, frozenset[str]], ...] = (
    ("mask", frozenset({"mask", "masks", "padding", "keep"})),
    ("edges", frozenset({"edge", "edges"})),
    ("adjacency", frozenset({"adj", "adjacency", "laplacian", "graph"})),
    ("lengths", frozenset({"len", "lens", "length", "lengths", "seqlens"})),
    ("boxes", frozenset({"bbox", "boxes", "bboxes"})),
    ("image", frozenset("img imgs image images pixel pixels picture photo rgb frame".split())),  # noqa: SIM905
    ("video", frozenset("video videos clip clips frames".split())),  # noqa: SIM905
    (
        "ids",
        frozenset(
            [
                "ids",
                "idx",
                "token",
                "tokens",
                "text",
                "texts",
                "word",
                "words",
                "sentence",
                "sentences",
                "caption",
                "captions",
                "indices",
                "chars",
            ]
        ),
    ),
    ("item", frozenset("user users item items movie movies product".split())),  # noqa: SIM905
    ("labels", frozenset("label labels target targets classes category".split())),  # noqa: SIM905
    ("step", frozenset("t ts time times timestep timesteps step steps sigma noise_level".split())),  # noqa: SIM905
    ("state", frozenset("h h0 hx hc hidden state0 prev_state prev_hidden carry".split())),  # noqa: SIM905
    ("signal", frozenset("wav wave waveform audio signal speech".split())),  # noqa: SIM905
    ("sequence", frozenset("seq sequence series window history rows src tgt".split())),  # noqa: SIM905
    ("points", frozenset("pts points xyz cloud pointcloud pc".split())),  # noqa: SIM905
    ("vector", frozenset("z noise latent obs observation action actions features row state".split())),  # noqa: SIM905
)

FLAGS: dict[str, object] = {"bool": False, "int": 1, "float": 1.0, "str": "", "None": None}


@dataclass(frozen=True)
class Argument:
    """One parameter of forward."""

    name: str
    annotation: str
    required: bool
    keyword: bool
    several: bool = False  # *args


@dataclass(frozen=True)
class Context:
    """What is known before the first run."""

    model: nn.Module
    arguments: tuple[Argument, ...]
    entries: tuple[Guess, ...]  # what the first layers take, most likely first
    sizes: dict[str, int]
    channels: int
    extra: bool  # forward takes **kwargs

    def plan(self, arguments: Mapping[str, Node], keywords: frozenset[str] = frozenset()) -> Plan:
        """A plan of these arguments over the usual sizes."""
        return Plan(tuple(arguments.items()), tuple(sorted(self.sizes.items())), keywords, floating_of(self.model))


def context(model: nn.Module) -> Context:
    """Read the signature, the first layers and the sizes that the model states."""
    arguments, extra = signature(model)
    side = next(iter(stated_sides(model)), SIZES["S"])
    conv = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    channels = conv.in_channels if conv is not None else 3
    entries = tuple(dict.fromkeys(entry_guesses(model))) or (Guess("vector", ("B", 8)),)
    return Context(model, arguments, entries, {**SIZES, "S": side}, channels, extra)


def signature(model: nn.Module) -> tuple[tuple[Argument, ...], bool]:
    """The parameters of forward in order, and whether it takes **kwargs."""
    parameters = inspect.signature(model.forward).parameters.values()
    kept = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
    arguments = tuple(
        Argument(p.name, _annotation(p), p.default is p.empty, p.kind is p.KEYWORD_ONLY, p.kind is p.VAR_POSITIONAL)
        for p in kept
    )
    return arguments, any(p.kind is p.VAR_KEYWORD for p in parameters)


def _annotation(parameter: inspect.Parameter) -> str:
    if parameter.annotation is parameter.empty:
        return ""
    given = parameter.annotation
    return (
        given
        if isinstance(given, str)
        else getattr(given, "__name__", str(given))
        if inspect.isclass(given)
        else str(given)
    )


def words(name: str) -> tuple[str, ...]:
    """The words of an identifier: "input_ids" and "inputIds" are input, ids."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return tuple(word.rstrip("0123456789") or word for word in spaced.lower().split("_") if word)


def role_of(name: str) -> str:
    """What a parameter's name says it is, or ""."""
    said = {name.lower(), *words(name)}
    return next((role for role, known in NAMES if said & known), "")


def guesses(argument: Argument, known: Context) -> list[Node]:
    """What the argument may be, most likely first."""
    typed = _by_annotation(argument, known)
    if typed:
        return typed
    named = _by_name(argument.name, known)
    rest = [guess for guess in known.entries if guess not in named]
    return [*named, *rest]


def _by_annotation(argument: Argument, known: Context) -> list[Node]:
    text = argument.annotation.replace("torch.", "").replace("typing.", "")
    bare = re.sub(r"^Optional\[(.*)\]$|\s*\|\s*None", r"\1", text).strip()
    if bare in FLAGS:
        return [Constant(FLAGS[bare])]
    if re.match(r"(LongTensor|IntTensor)$", bare):
        return [node for node in _by_name(argument.name, known) if _whole(node)] or [Guess("ids", ("B", "T"), "int64")]
    if re.match(r"BoolTensor$", bare):
        return [Guess("mask", ("B", "T"), "bool")]
    if re.match(r"(List|list|Sequence)\[Tensor\]$", bare):
        image = Guess("image", (known.channels, "S", "S"))
        return [Group("list", (("0", image), ("1", image))), *_as_list(known)]
    if re.match(r"(Dict|dict|Mapping)\b", bare):
        return [Group("dict", ())]
    match = re.match(r"(?:Tuple|tuple)\[(Tensor(?:,\s*Tensor)*)\]$", bare)
    if match is not None and role_of(argument.name) != "state":
        count = match[1].count("Tensor")
        return [Group("tuple", tuple((str(i), known.entries[0]) for i in range(count)))]
    return _by_dims(bare)


def _as_list(known: Context) -> list[Node]:
    return [Group("list", (("0", guess), ("1", guess))) for guess in known.entries[:2]]


def _whole(node: Node) -> bool:
    return isinstance(node, Guess) and node.dtype == "int64"


LETTERS: dict[str, Axis] = {
    **dict.fromkeys(("b", "batch", "n", "bs", "batch_size", "bsz"), "B"),
    **dict.fromkeys(("t", "seq", "time", "steps", "seq_len", "length", "s"), "T"),
    **dict.fromkeys(("h", "w", "height", "width"), "S"),
}


def _by_dims(text: str) -> list[Node]:
    """jaxtyping: Float[Tensor, "batch 3 height width"]."""
    match = re.match(r"(Float|Int|Bool|Num|Real|Shaped)\w*\[Tensor, ['\"]([\w ]+)['\"]\]$", text)
    if match is None:
        return []
    axes = tuple(int(word) if word.isdigit() else LETTERS.get(word.lower(), 8) for word in match[2].split())
    dtype = {"Int": "int64", "Bool": "bool"}.get(match[1], "float32")
    return [Guess("ids" if dtype == "int64" else "vector", axes, dtype)]


def _by_name(name: str, known: Context) -> list[Node]:
    role = role_of(name)
    return ROLES[role](known) if role else []


def _of_rank(known: Context, *ranks: int) -> list[Node]:
    return [guess for guess in known.entries if len(guess.axes) in ranks and guess.dtype == "float32"]


def _masks(known: Context) -> list[Node]:
    return [
        Guess("mask", ("B", "T"), "bool"),
        Guess("mask", ("B", "T")),
        Guess("mask", ("T", "T"), "bool"),
        Guess("mask", ("B", "T", "T"), "bool"),
    ]


def _images(known: Context) -> list[Node]:
    return _of_rank(known, 4) or [
        *_of_rank(known, 2, 3),
        Guess("image", ("B", known.channels, "S", "S")),
    ]


def _states(known: Context) -> list[Node]:
    """The initial state that the first recurrent layer takes."""
    layer = next((m for m in known.model.modules() if isinstance(m, (nn.RNNBase, nn.RNNCellBase))), None)
    if layer is None:
        return _of_rank(known, 2)
    shape: tuple[Axis, ...] = ("B", layer.hidden_size)
    if isinstance(layer, nn.RNNBase):
        shape = (layer.num_layers * (2 if layer.bidirectional else 1), *shape)
    state = Guess("first", shape)
    if isinstance(layer, (nn.LSTM, nn.LSTMCell)):
        return [Group("tuple", (("0", state), ("1", state))), state]
    return [state]


def _points(known: Context) -> list[Node]:
    width = next((g.axes[-1] for g in known.entries if isinstance(g.axes[-1], int)), 3)
    channels = next((g.axes[1] for g in known.entries if len(g.axes) == 3), width)
    return [Guess("sequence", ("B", "T", width)), Guess("signal", ("B", channels, "L"))]


def _signals(known: Context) -> list[Node]:
    return _of_rank(known, 3) or [*_of_rank(known, 2), Guess("signal", ("B", 1, "L")), Guess("signal", ("B", "L"))]


def _sequences(known: Context) -> list[Node]:
    whole: list[Node] = [g for g in known.entries if g.dtype == "int64"]
    return [*(whole if known.entries and known.entries[0].dtype == "int64" else []), *_of_rank(known, 3)]


ROLES: dict[str, Callable[[Context], list[Node]]] = {
    "mask": _masks,
    "edges": lambda known: [Guess("edges", (2, "E"), "int64")],
    "adjacency": lambda known: [Guess("adjacency", ("N", "N")), Guess("edges", (2, "E"), "int64")],
    "lengths": lambda known: [Guess("lengths", ("B",), "int64")],
    "boxes": lambda known: [Guess("boxes", ("B", "T", 4)), Guess("boxes", ("B", "T", 4), "int64")],
    "image": _images,
    "video": lambda known: _of_rank(known, 5) or [Guess("video", ("B", "D", known.channels, "S", "S"))],
    "ids": lambda known: [Guess("ids", ("B", "T"), "int64"), Guess("ids", ("B",), "int64")],
    "item": lambda known: [Guess("ids", ("B",), "int64"), Guess("ids", ("B", "T"), "int64")],
    "labels": lambda known: [Guess("labels", ("B",), "int64"), Guess("labels", ("B", "T"), "int64")],
    "step": lambda known: [Guess("share", ("B",)), Guess("ids", ("B",), "int64"), Guess("share", ("B", 1))],
    "state": _states,
    "signal": _signals,
    "sequence": _sequences,
    "points": _points,
    "vector": lambda known: _of_rank(known, 2),
}


def starts(known: Context) -> Iterator[tuple[float, Plan]]:
    """The first plans with their costs: the likeliest guess for each required argument, then single changes of it."""
    arguments = [a for a in known.arguments if a.required and not a.several]
    if not arguments:
        arguments = [replace(a, several=False) for a in known.arguments[:1]]
    choices = {a.name: guesses(a, known) or list(known.entries) for a in arguments}
    choices = _as_graph(choices)
    keywords = frozenset(a.name for a in arguments if a.keyword)
    best = known.plan({name: nodes[0] for name, nodes in choices.items()}, keywords)
    yield 0.0, best
    for name, nodes in choices.items():
        for rank, node in enumerate(nodes[1:6], start=1):
            yield rank + 0.5, best.put(name, node)


def _as_graph(choices: dict[str, list[Node]]) -> dict[str, list[Node]]:
    """Beside edges or an adjacency matrix, the features are one row a node."""
    roles = {name: nodes[0].role if isinstance(nodes[0], Guess) else "" for name, nodes in choices.items()}
    if not {"edges", "adjacency"} & set(roles.values()):
        return choices
    return {name: [_per_node(node) for node in nodes] for name, nodes in choices.items()}


def _per_node(node: Node) -> Node:
    if not isinstance(node, Guess) or node.role in ("edges", "adjacency"):
        return node
    if node.dtype == "int64" and node.axes == ("B", "T"):
        return replace(node, axes=("N",))
    return replace(node, axes=tuple("N" if axis in ("B", "T") else axis for axis in node.axes[-2:]))
