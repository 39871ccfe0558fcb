"""The first plans: what each argument of forward is, by its name, its annotation and the model's first layers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from torch import nn

from gradlint.load.feed_plan import Axis, Constant, Group, Guess, Node, Plan
from gradlint.load.infer_context import Argument, Context
from gradlint.load.infer_source import Use

# what a parameter's name says: a role, and the words of the snake-case name; the first row with a match wins
NAMES: dict[str, str] = {
    "mask": "mask masks padding keep",
    "edges": "edge edges",
    "adjacency": "adj adjacency laplacian graph",
    "lengths": "len lens length lengths seqlens",
    "keypoints": "keypoint keypoints landmarks",
    "boxes": "bbox boxes bboxes",
    "image": "img imgs image images pixel pixels picture photo rgb frame",
    "video": "video videos clip clips frames",
    "ids": "ids idx token tokens text texts word words sentence sentences caption captions indices chars",
    "item": "user users item items movie movies product",
    "labels": "label labels target targets classes category",
    "step": "t ts time times timestep timesteps step steps sigma noise_level",
    "state": "h h0 hx hc hidden state states prev_state prev_hidden carry",
    "signal": "wav wave waveform audio signal speech",
    "sequence": "seq sequence series window history rows src tgt context memory",
    "points": "pts points xyz cloud pointcloud pc",
    "vector": "z noise latent obs observation action actions features row",
}

FLAGS: dict[str, object] = {"bool": False, "int": 1, "float": 1.0, "str": "", "None": None}


def words(name: str) -> tuple[str, ...]:
    """The words of an identifier: "input_ids" and "inputIds" are input, ids."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return tuple(word.rstrip("0123456789") or word for word in spaced.lower().split("_") if word)


def role_of(name: str) -> str:
    """What a parameter's name says it is, or ""."""
    said = {name.lower(), *words(name)}
    return next((role for role, known in NAMES.items() if said & {*known.split()}), "")


def guesses(argument: Argument, known: Context) -> list[Node]:
    """What the argument may be, most likely first."""
    typed = _by_annotation(argument, known) or _by_use(argument, known)
    if typed:
        return typed
    first = known.arguments[:1] == (argument,)
    observed = first and role_of(argument.name) == "state" and not _is_recurrent_state(argument, known)
    named = [] if observed else _by_name(argument.name, known)
    return list(dict.fromkeys([*named, *known.entries]))


def _is_recurrent_state(argument: Argument, known: Context) -> bool:
    """Whether a first argument is what a recurrent layer starts from, and not what an agent sees (`state`)."""
    beside = any(a.required and a != argument for a in known.arguments)
    recurrent = any(isinstance(m, (nn.RNNBase, nn.RNNCellBase)) for m in known.model.modules())
    return beside and recurrent and not {"state", "states"} & {*words(argument.name)}


def _by_use(argument: Argument, known: Context) -> list[Node]:
    """A dict with the keys, an object with the fields, or a tuple with the parts that forward takes from it."""
    use = known.uses.get(argument.name, Use())
    if use.keys:
        return [Group("dict", tuple((key, member(key, known)) for key in use.keys))]
    if use.fields:
        return [_as_graph_object(tuple((key, member(key, known)) for key in use.fields))]
    if len(use.unpacked) > 1 and role_of(argument.name) not in ("edges", "state"):
        return [Group("tuple", tuple((str(i), member(key, known)) for i, key in enumerate(use.unpacked)))]
    return []


def member(key: str, known: Context) -> Node:
    """The likeliest guess for a part of a container, by its name."""
    return (*_by_name(key, known), *known.entries)[0]


def _as_graph_object(members: tuple[tuple[str, Node], ...]) -> Group:
    """A data object of a graph library: features are one row a node."""
    choices = _as_graph({key: [node] for key, node in members})
    return Group("object", tuple((key, nodes[0]) for key, nodes in choices.items()))


def _by_annotation(argument: Argument, known: Context) -> list[Node]:
    text = argument.annotation.replace("torch.", "").replace("typing.", "")
    bare = re.sub(r"^Optional\[(.*)\]$|\s*\|\s*None", r"\1", text).strip()
    if bare in FLAGS:
        return [Constant(FLAGS[bare])]
    if re.match(r"(LongTensor|IntTensor)$", bare):
        return [node for node in _by_name(argument.name, known) if _whole(node)] or [Guess("ids", ("B", "T"), "int64")]
    if re.match(r"BoolTensor$", bare):
        return [Guess("mask", ("B", "T"), "bool")]
    if re.match(r"(List|list|Sequence)\[(Dict|dict)\[str, Tensor\]\]$", bare):
        return [Group("list", (("0", BOXED), ("1", BOXED)))]
    if re.match(r"(List|list|Sequence)\[Tensor\]$", bare):
        image = Guess("image", (known.channels, "S", "S"))
        return [Group("list", (("0", image), ("1", image))), *_as_list(known)]
    if re.match(r"(Dict|dict|Mapping)\b", bare):
        return _by_use(argument, known) or [Group("dict", ())]
    match = re.match(r"(?:Tuple|tuple)\[(Tensor(?:,\s*Tensor)*)\]$", bare)
    if match is not None and role_of(argument.name) != "state":
        count = match[1].count("Tensor")
        return [Group("tuple", tuple((str(i), known.entries[0]) for i in range(count)))]
    return _by_dims(bare)


BOXED = Group("dict", (("boxes", Guess("boxes", (3, 4))), ("labels", Guess("ids", (3,), "int64"))))
"""The target of one image for a detector: boxes and their classes."""


BESIDE_BOXES: dict[str, Guess] = {
    "masks": Guess("mask", (3, "S", "S"), "uint8"),
    "keypoints": Guess("keypoints", (3, 17, 3)),
    "area": Guess("share", (3,)),
    "iscrowd": Guess("first", (3,), "int64"),
    "image_id": Guess("first", (1,), "int64"),
}
"""The rest of a COCO target, one entry a box."""


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


HIDDEN_ATTRIBUTES = ("hidden_size", "hidden_dim", "hidden_units", "n_hidden", "nhid")


def _states(known: Context) -> list[Node]:
    """The initial state that the first recurrent layer takes."""
    layer = next((m for m in known.model.modules() if isinstance(m, (nn.RNNBase, nn.RNNCellBase))), None)
    if layer is None:
        stated = [getattr(known.model, name, None) for name in HIDDEN_ATTRIBUTES]
        return [*(Guess("first", ("B", width)) for width in stated if isinstance(width, int)), *_of_rank(known, 2)]
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
    "boxes": lambda known: [Guess("boxes", ("B", "T", 4), "int64"), Guess("boxes", ("B", "T", 4))],
    "keypoints": lambda known: [Guess("keypoints", ("B", 17, 3))],
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
        for rank, node in enumerate(anything(known)):
            yield 4.0 + 0.5 * rank, best.put(name, node)


def anything(known: Context) -> list[Node]:
    """What an argument of unknown meaning may be, whatever the layers are."""
    return [
        Guess("ids", ("B", "T"), "int64"),
        Guess("image", ("B", known.channels, "S", "S")),
        Guess("sequence", ("B", "T", 8)),
        *(ROLES["state"](known) if any(isinstance(m, nn.RNNBase) for m in known.model.modules()) else []),
        Guess("ids", ("B",), "int64"),
        Guess("vector", ("B", 8)),
        Guess("vector", ("B",)),
        Guess("mask", ("B", "T"), "bool"),
        Group("dict", ()),
    ]


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
