"""Handlers of operators that make a grid of positions larger or smaller, or sample it elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradlint.onnx.node import Handler, Node, UnsupportedError
from gradlint.onnx.program import Symbol


def depth_to_space(n: Node) -> Symbol:
    """Channels to positions; CRD is torch's pixel_shuffle."""
    block = n.attr("blocksize")
    if n.attr("mode", "DCR") == "CRD":
        return n.out("F.pixel_shuffle", n[0], block)
    b, c, h, w = n.shape()
    parts = (b, block, block, c // block**2, h, w)
    x = n.step("M.reshape", n[0], parts, shape=parts, dtype=n[0].dtype)
    order = (0, 3, 4, 1, 5, 2)
    x = n.step("M.permute", x, order, shape=[parts[i] for i in order], dtype=x.dtype)
    return n.out("M.reshape", x, (b, c // block**2, h * block, w * block))


def space_to_depth(n: Node) -> Symbol:
    """Positions to channels; CRD is torch's pixel_unshuffle."""
    block = n.attr("blocksize")
    if n.attr("mode", "DCR") == "CRD":
        return n.out("F.pixel_unshuffle", n[0], block)
    b, c, h, w = n.shape()
    parts = (b, c, h // block, block, w // block, block)
    x = n.step("M.reshape", n[0], parts, shape=parts, dtype=n[0].dtype)
    order = (0, 3, 5, 1, 2, 4)
    x = n.step("M.permute", x, order, shape=[parts[i] for i in order], dtype=x.dtype)
    return n.out("M.reshape", x, (b, c * block**2, h // block, w // block))


def resize(n: Node) -> Symbol:
    """What torch's interpolate does too; other ways of placing the samples are not known."""
    scales, sizes = (1, None) if n.spec.op == "Upsample" else (2, 3)
    factors = _factors(n, scales)
    spatial = n.rank() - 2
    target = n.ints(sizes) if sizes is not None and n.get(sizes) is not None else None
    axes = n.attr("axes")
    if axes is not None and [a % n.rank() for a in axes] != list(range(2, n.rank())):
        raise UnsupportedError("a resize along other axes than the last ones")
    cut = 0 if axes is not None else 2
    first = ([1.0, 1.0] if factors is None else factors[:2]) if cut else [1.0, 1.0]
    kept = target is None or cut == 0 or tuple(target[:2]) == n.shape()[:2]
    if list(first) != [1.0, 1.0] or not kept or not 1 <= spatial <= 3:
        raise UnsupportedError("a resize of batch or channels")
    mode, extra = _interpolation(n, spatial)
    _check_placement(n, list(target[cut:]) if target is not None else None, factors[cut:] if factors else None)
    if target is not None:
        if n.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise UnsupportedError("a resize that keeps the aspect ratio")
        return n.out("F.interpolate", n[0], tuple(target[cut:]), mode=mode, **extra)
    if factors is None:
        raise UnsupportedError("a resize without sizes")
    return n.out("F.interpolate", n[0], scale_factor=tuple(factors[cut:]), mode=mode, **extra)


def _check_placement(n: Node, target: list[int] | None, factors: list[float] | None) -> None:
    """Raise UnsupportedError where a sample falls between two entries, or torch spaces the samples otherwise."""
    placed, rounding = n.attr("coordinate_transformation_mode", ""), n.attr("nearest_mode", "round_prefer_floor")
    sizes = n.shape()[2:]
    for size, wanted, factor in zip(sizes, target or [0] * len(sizes), factors or [0.0] * len(sizes), strict=True):
        length = wanted or size * factor
        if n.attr("mode", "nearest") == "nearest" and placed in ("", "half_pixel") and rounding == "round_prefer_floor":
            if n.version >= 11 and any(((x + 0.5) * size / length).is_integer() for x in range(int(length))):
                raise UnsupportedError("a nearest resize that falls between two entries")
        elif placed == "align_corners" and not float(length).is_integer():
            raise UnsupportedError("a resize that aligns corners to a fraction")
        elif placed == "pytorch_half_pixel" and int(length) == 1:
            raise UnsupportedError("a resize to a single sample")


def _factors(n: Node, position: int) -> list[float] | None:
    symbol = n.get(position)
    if symbol is None:
        given = n.attr("scales")
        return None if given is None else [float(value) for value in given]
    found = [float(value) for value in n.entries(position).reshape(-1)]
    return found or None


def _interpolation(n: Node, spatial: int) -> tuple[str, dict[str, Any]]:
    mode = n.attr("mode", "nearest")
    old = n.spec.op == "Upsample" or n.version < 11
    placed = n.attr("coordinate_transformation_mode", "asymmetric" if old else "half_pixel")
    if n.attr("antialias", 0) or n.attr("exclude_outside", 0):
        raise UnsupportedError("a resize with antialiasing or without what lies outside")
    if mode == "nearest":
        rounding = n.attr("nearest_mode", "floor" if old else "round_prefer_floor")
        if (placed, rounding) == ("asymmetric", "floor"):
            return "nearest", {}
        if placed == "half_pixel" and rounding in ("round_prefer_floor", "round_prefer_ceil"):
            return "nearest-exact", {}
        raise UnsupportedError(f"a nearest resize that is {placed} and rounds by {rounding}")
    aligned = {"align_corners": True, "half_pixel": False, "pytorch_half_pixel": False}.get(placed)
    if aligned is None:
        raise UnsupportedError(f"a resize that is {placed}")
    if mode == "cubic":
        if spatial != 2 or abs(n.attr("cubic_coeff_a", -0.75) + 0.75) > 1e-6:
            raise UnsupportedError("a cubic resize that torch does not do")
        return "bicubic", {"align_corners": aligned}
    return ("linear", "bilinear", "trilinear")[spatial - 1], {"align_corners": aligned}


def grid_sample(n: Node) -> Symbol:
    """Sampled at places that the network computes."""
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(n.attr("mode", "bilinear"), n.attr("mode", "bilinear"))
    return n.out("F.grid_sample", n[0], n[1], mode, n.attr("padding_mode", "zeros"), bool(n.attr("align_corners", 0)))


HANDLERS: Mapping[str, Handler] = {
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "Resize": resize,
    "Upsample": resize,
    "GridSample": grid_sample,
}
