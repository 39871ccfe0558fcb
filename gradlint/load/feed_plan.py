"""A plan of example inputs: what each argument of forward is, over named sizes, and how its entries are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Literal

import torch
from torch import Tensor

from gradlint.load.spec import FLOATS, INTEGERS, Values

Axis = int | str
"""A dimension: its size, or the name of a size that several inputs share ("B" batch, "T" steps, "S" image side …)."""

NORMAL = Values("normal", 0.0, 1.0)


@dataclass(frozen=True)
class Guess:
    """One tensor: `role` says what it is for (a row of `FILL`), `axes` its dimensions."""

    role: str
    axes: tuple[Axis, ...]
    dtype: str = "float32"
    values: Values | None = None


@dataclass(frozen=True)
class Group:
    """A container of inputs; the keys of a list or a tuple are "0", "1" …"""

    kind: Literal["dict", "list", "tuple", "object"]
    members: tuple[tuple[str, Node], ...]


@dataclass(frozen=True)
class Constant:
    """An argument that is not a tensor (a flag, a number), or a tensor that the model itself gave."""

    value: object

    def __hash__(self) -> int:
        return hash(type(self.value))


Node = Guess | Group | Constant


@dataclass(frozen=True)
class Plan:
    """The arguments of one call of forward. `keywords` names those that are passed by keyword."""

    arguments: tuple[tuple[str, Node], ...]
    sizes: tuple[tuple[str, int], ...]
    keywords: frozenset[str] = frozenset()
    floating: str = "float32"  # the dtype of guessed features: that of the model's own weights

    def size(self, axis: Axis) -> int:
        """The number of entries along the axis."""
        return axis if isinstance(axis, int) else dict(self.sizes)[axis]

    def shape(self, guess: Guess) -> tuple[int, ...]:
        """The guess's dimensions as numbers."""
        return tuple(self.size(axis) for axis in guess.axes)

    @property
    def elements(self) -> int:
        """How many numbers the inputs hold together."""
        return sum(math.prod(self.shape(guess)) for guess in self.leaves().values())

    def leaves(self) -> dict[str, Guess]:
        """Every tensor of the plan by its dotted path ("x", "batch.image", "hidden.0")."""
        return dict(_leaves(self.arguments, ""))

    def groups(self) -> dict[str, Group]:
        """Every container of the plan by its dotted path."""
        return dict(_groups(self.arguments, ""))

    def resized(self, **sizes: int) -> Plan:
        """The same plan with other sizes."""
        return replace(self, sizes=tuple(sorted({**dict(self.sizes), **sizes}.items())))

    def put(self, path: str, node: Node) -> Plan:
        """The same plan with another node at the dotted path (added to its container, or as an argument, when new)."""
        return replace(self, arguments=_put(self.arguments, path.split("."), node))

    def node(self, path: str) -> Node | None:
        """The node at the dotted path, or None."""
        members: tuple[tuple[str, Node], ...] = self.arguments
        found: Node | None = None
        for key in path.split("."):
            found = dict(members).get(key)
            members = found.members if isinstance(found, Group) else ()
        return found


def _leaves(members: tuple[tuple[str, Node], ...], prefix: str) -> Iterator[tuple[str, Guess]]:
    for key, node in members:
        if isinstance(node, Guess):
            yield prefix + key, node
        elif isinstance(node, Group):
            yield from _leaves(node.members, f"{prefix}{key}.")


def _groups(members: tuple[tuple[str, Node], ...], prefix: str) -> Iterator[tuple[str, Group]]:
    for key, node in members:
        if isinstance(node, Group):
            yield prefix + key, node
            yield from _groups(node.members, f"{prefix}{key}.")


def _put(members: tuple[tuple[str, Node], ...], path: list[str], node: Node) -> tuple[tuple[str, Node], ...]:
    head, *rest = path
    old = dict(members).get(head)
    new = node
    if rest and isinstance(old, Group):
        new = replace(old, members=_put(old.members, rest, node))
    if head in dict(members):
        return tuple((key, new if key == head else kept) for key, kept in members)
    return (*members, (head, new))


@dataclass(frozen=True)
class Drawn:
    """Arguments made from a plan, and every tensor among them by path."""

    args: tuple[object, ...]
    kwargs: dict[str, object]
    tensors: dict[str, Tensor]


def draw(plan: Plan, seed: int, device: str | torch.device = "cpu") -> Drawn:
    """The arguments of the plan; equal seeds give equal entries. On the meta device nothing is stored."""
    generator = torch.Generator()
    generator.manual_seed(seed)
    tensors: dict[str, Tensor] = {}

    def build(path: str, node: Node) -> object:
        if isinstance(node, Constant):
            return node.value
        if isinstance(node, Group):
            return _container(node.kind, {key: build(f"{path}.{key}", member) for key, member in node.members})
        tensors[path] = _tensor(plan, node, generator, torch.device(device))
        return tensors[path]

    built = {name: build(name, node) for name, node in plan.arguments}
    args = tuple(value for name, value in built.items() if name not in plan.keywords)
    return Drawn(args, {name: value for name, value in built.items() if name in plan.keywords}, tensors)


def _container(kind: str, members: dict[str, object]) -> object:
    return CONTAINERS[kind](members)


CONTAINERS: dict[str, Callable[[dict[str, object]], object]] = {
    "dict": dict,
    "list": lambda members: list(members.values()),
    "tuple": lambda members: tuple(members.values()),
    "object": lambda members: SimpleNamespace(**members),
}


def _tensor(plan: Plan, guess: Guess, generator: torch.Generator, device: torch.device) -> Tensor:
    name = plan.floating if guess.dtype == "float32" and guess.role != "given" else guess.dtype
    shape, dtype = plan.shape(guess), getattr(torch, name)
    if device.type == "meta":
        return torch.empty(shape, dtype=dtype, device=device)
    if guess.values is not None:
        return _from_law(guess.values, shape, dtype, generator).to(device)
    fill = FILL.get(guess.role, _plain)
    return fill(shape, dtype, generator, dict(plan.sizes)).to(dtype).to(device)


def _from_law(values: Values, shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    if values.law == "integers":
        return torch.randint(int(values.first), int(values.second), shape, generator=generator).to(dtype)
    if values.law == "uniform":
        return torch.rand(shape, generator=generator).mul_(values.second - values.first).add_(values.first).to(dtype)
    return _normal(shape, dtype, generator).mul_(values.second).add_(values.first)


def _normal(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    draw_in = dtype if dtype.is_complex else torch.float32
    return torch.randn(shape, dtype=draw_in, generator=generator).to(dtype)


Sizes = Mapping[str, int]
Fill = Callable[[tuple[int, ...], torch.dtype, torch.Generator, Sizes], Tensor]


def _plain(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, sizes: Sizes) -> Tensor:
    if dtype == torch.bool:
        return torch.ones(shape, dtype=dtype)
    if not dtype.is_floating_point and not dtype.is_complex:
        return torch.randint(0, 2, shape, generator=generator)
    return _normal(shape, dtype, generator)


def _ones(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, sizes: Sizes) -> Tensor:
    return torch.ones(shape)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, sizes: Sizes) -> Tensor:
    return torch.zeros(shape)


def _lengths(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, sizes: Sizes) -> Tensor:
    return torch.full(shape, sizes["T"])


def _edges(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, sizes: Sizes) -> Tensor:
    """Every node has an edge to its successor; the others are drawn."""
    nodes = sizes["N"]
    ring = torch.arange(nodes) % nodes
    ends = torch.randint(0, nodes, shape, generator=generator)
    count = min(nodes, shape[-1])
    ends[..., 0, :count] = ring[:count]
    ends[..., 1, :count] = (ring[:count] + 1) % nodes
    return ends


def _adjacency(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, sizes: Sizes) -> Tensor:
    """A random undirected graph with self-loops, D^-1/2 A D^-1/2 (Kipf & Welling 2017, eq. 2)."""
    linked = torch.rand(shape, generator=generator) < min(1.0, 4 / shape[-1])
    graph = (linked | linked.mT | torch.eye(shape[-1], dtype=torch.bool)).float()
    degree = graph.sum(-1).rsqrt()
    return degree.unsqueeze(-1) * graph * degree.unsqueeze(-2)


def _members(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, sizes: Sizes) -> Tensor:
    """Which graph each node belongs to: two graphs, one after the other."""
    return torch.arange(shape[0]) * 2 // shape[0]


def _boxes(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, sizes: Sizes) -> Tensor:
    """Rectangles x0, y0, x1, y1 inside an image of side S."""
    side = sizes.get("S", 64)
    corner = torch.rand((*shape[:-1], 2), generator=generator) * 0.5 * side
    extent = (torch.rand((*shape[:-1], 2), generator=generator) * 0.3 + 0.15) * side
    return torch.cat([corner, corner + extent], -1)


def _keypoints(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, sizes: Sizes) -> Tensor:
    """x, y inside the image, and 1 for visible."""
    points = torch.rand(shape, generator=generator) * sizes.get("S", 64)
    points[..., 2] = 1
    return points


def _share(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, sizes: Sizes) -> Tensor:
    return torch.rand(shape, generator=generator)


FILL: dict[str, Fill] = {
    "mask": _ones,  # what to keep
    "open mask": _zeros,  # what to leave out, or what is added to the scores
    "lengths": _lengths,
    "edges": _edges,
    "adjacency": _adjacency,
    "members": _members,
    "boxes": _boxes,
    "keypoints": _keypoints,
    "share": _share,
    "first": _zeros,  # the initial state of a recurrent layer
}

WORDS = {"mask": "ones", "open mask": "zeros", "first": "zeros", "share": "U(0,1)", "adjacency": "a normalised graph"}


def describe(guess: Guess) -> str:
    """The law of the guess's entries in a few words, for the report."""
    if guess.values is not None:
        return str(guess.values)
    if guess.role in FILL:
        return WORDS.get(guess.role, guess.role)
    if guess.dtype in INTEGERS:
        return "<2"
    return str(NORMAL) if guess.dtype in FLOATS or guess.dtype.startswith("complex") else "ones"
