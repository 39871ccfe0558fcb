"""What the first layers of a model take, and the image sides that it states."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from gradlint.load.feed_plan import Axis, Guess

IMAGE_ATTRIBUTES = (
    "img_size",
    "image_size",
    "input_resolution",
    "img_resolution",
    "resolution",
    "input_size",
    "img_dim",
)
SEQUENCE_LAYERS = (nn.RNNBase, nn.MultiheadAttention, nn.TransformerEncoderLayer)

Kinds = type[nn.Module] | tuple[type[nn.Module], ...]


def has_shape(tensor: torch.Tensor) -> bool:
    """Whether a parameter or buffer has its shape already; a lazy layer's has not."""
    return not is_lazy(tensor)


def leaves(model: nn.Module) -> list[nn.Module]:
    """The modules that own parameters, in registration order; those in plain lists too when nothing is registered."""
    found = [m for m in model.modules() if next(m.parameters(recurse=False), None) is not None]
    if found:
        return found
    listed = [v for v in vars(model).values() if isinstance(v, (list, tuple))]
    return [m for items in listed for item in items if isinstance(item, nn.Module) for m in leaves(item)]


def entry_guesses(model: nn.Module) -> Iterator[Guess]:
    """What the first layers take, in registration order; sequences first where the model has layers for them."""
    sequential = any(isinstance(m, SEQUENCE_LAYERS) for m in model.modules())
    for module in leaves(model)[:10]:
        take = next((take for kinds, take in TAKES if isinstance(module, kinds)), None)
        taken = take(module) if take is not None else []
        flat = taken and taken[0].role == "vector"
        yield from sorted(taken, key=lambda guess: -len(guess.axes)) if sequential and flat else taken
    yield from raw_guesses(model)


def raw_guesses(model: nn.Module) -> Iterator[Guess]:
    """What a bare weight takes: x @ W, or W applied as a layer applies it."""
    bare = [m for m in leaves(model)[:6] if not any(isinstance(m, kinds) for kinds, _ in TAKES)]
    weights = [p for module in bare for p in module.parameters(recurse=False) if has_shape(p)]
    yield from (Guess("image", ("B", p.shape[1], "S", "S")) for p in weights if p.dim() == 4)
    widths = [width for p in weights if p.dim() == 2 for width in p.shape]
    yield from (Guess("vector", ("B", width)) for width in widths)
    yield from (Guess("sequence", ("B", "T", width)) for width in widths)


def _recurrent(layer: Any) -> list[Guess]:
    return [Guess("sequence", (*_steps(layer.batch_first), layer.input_size))]


def _attention(layer: Any) -> list[Guess]:
    return [Guess("sequence", (*_steps(layer.batch_first), layer.embed_dim))]


def _steps(batch_first: object) -> tuple[Axis, Axis]:
    return ("B", "T") if batch_first else ("T", "B")


def _flat(*shape: int) -> list[Guess]:
    widths = tuple(width or LAZY_WIDTH for width in shape)
    return [Guess("vector", ("B", *widths)), Guess("sequence", ("B", "T", *widths))]


LAZY_WIDTH = 16
"""Features for a lazy layer, which takes any; images get three channels, signals one."""


def _transposed(layer: Any) -> list[Guess]:
    """A generator starts from one pixel when its first layer does not pad; else from a small map."""
    small: tuple[Axis, Axis] = (1, 1) if layer.kernel_size[0] > 2 and layer.padding[0] == 0 else (8, 8)
    return [Guess("map", ("B", layer.in_channels, *small)), _image(layer.in_channels)]


def _image(channels: int) -> Guess:
    return Guess("image", ("B", channels or 3, "S", "S"))


def _volume(channels: int) -> Guess:
    return Guess("volume", ("B", channels or 1, "D", "S", "S"))


def _signal(channels: int) -> Guess:
    return Guess("signal", ("B", channels or 1, "L"))


TAKES: tuple[tuple[Kinds, Callable[[Any], list[Guess]]], ...] = (
    (nn.Conv2d, lambda m: [_image(m.in_channels)]),
    (nn.Conv1d, lambda m: [_signal(m.in_channels)]),
    (nn.Conv3d, lambda m: [_volume(m.in_channels)]),
    (nn.ConvTranspose2d, _transposed),
    (nn.ConvTranspose1d, lambda m: [Guess("map", ("B", m.in_channels, 8)), _signal(m.in_channels)]),
    (nn.ConvTranspose3d, lambda m: [Guess("map", ("B", m.in_channels, 1, 1, 1)), _volume(m.in_channels)]),
    ((nn.Embedding, nn.EmbeddingBag), lambda m: [Guess("ids", ("B", "T"), "int64")]),
    (nn.RNNBase, _recurrent),
    (nn.RNNCellBase, lambda m: [Guess("sequence", ("B", "T", m.input_size)), Guess("vector", ("B", m.input_size))]),
    (nn.MultiheadAttention, _attention),
    (nn.Linear, lambda m: _flat(m.in_features)),
    (nn.Bilinear, lambda m: [Guess("vector", ("B", m.in1_features)), Guess("vector", ("B", m.in2_features))]),
    (nn.LayerNorm, lambda m: _flat(*m.normalized_shape)),
    (nn.GroupNorm, lambda m: [_image(m.num_channels)]),
    (nn.BatchNorm1d, lambda m: [Guess("vector", ("B", m.num_features)), _signal(m.num_features)]),
    ((nn.BatchNorm2d, nn.InstanceNorm2d), lambda m: [_image(m.num_features)]),
    ((nn.BatchNorm3d, nn.InstanceNorm3d), lambda m: [_volume(m.num_features)]),
)


def stated_sides(model: nn.Module) -> Iterator[int]:
    """Image sides that the model states: attributes of its first modules, or the length of a position table."""
    for module in itertools.islice(model.modules(), 40):
        for name in IMAGE_ATTRIBUTES:
            yield from _side(getattr(module, name, None)) if not isinstance(module, nn.RNNBase) else ()
    yield from _table_sides(model)


def stem_sides(model: nn.Module) -> Iterator[int]:
    """224 for a stem that is ImageNet's: patches of 4 and more, or a 7 × 7 convolution of stride 2 and more."""
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None or not isinstance(leaves(model)[0], nn.Conv2d):
        return
    (kernel, _), (stride, _) = first.kernel_size, first.stride
    if stride >= 4 or (kernel >= 7 and stride >= 2):
        yield 224


def _side(value: object) -> Iterator[int]:
    if isinstance(value, (tuple, list)) and len(value) >= 2 and isinstance(value[-1], int):
        yield value[-1]
    elif isinstance(value, int) and not isinstance(value, bool) and 8 <= value <= 2048:
        yield value


def _table_sides(model: nn.Module) -> Iterator[int]:
    """A patch convolution and a learned position table of n entries (and a class token or two) give the side."""
    convs = (m for m in model.modules() if isinstance(m, nn.Conv2d))
    patch = next((m for m in convs if m.kernel_size == m.stride and m.stride[0] >= 2), None)
    tables = [p for name, p in model.named_parameters() if "pos" in name.lower() and has_shape(p) and p.dim() in (2, 3)]
    for table, tokens in itertools.product(tables, (0, 1, 2)) if patch is not None else ():
        patches = max(table.shape[-2] - tokens, 0)
        root = math.isqrt(patches)
        if patch is not None and root > 1 and root * root == patches and table.shape[-1] == patch.out_channels:
            yield root * patch.kernel_size[0]


def device_of(model: nn.Module) -> torch.device:
    """Where the model's tensors are (the CPU for a model without any)."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def floating_of(model: nn.Module) -> str:
    """The dtype of the model's weights."""
    dtypes = (p.dtype for p in model.parameters() if p.is_floating_point())
    return str(next(dtypes, torch.float32)).removeprefix("torch.")
