"""Every operator that is understood: its handler, which says what torch calls stand for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradlint.onnx import control, layers, pointwise, recurrent, reductions, resizing, shaping

HANDLERS: Mapping[str, Any] = {
    **pointwise.HANDLERS,
    **layers.HANDLERS,
    **shaping.HANDLERS,
    **resizing.HANDLERS,
    **reductions.HANDLERS,
    **recurrent.HANDLERS,
    **control.HANDLERS,
}
# operator → the torch function whose kind a node has that can only be understood during a run
LATE: Mapping[str, str] = {
    "Reshape": "reshape",
    "Expand": "expand",
    "Tile": "repeat",
    "Slice": "getitem",
    "Pad": "pad",
    "Range": "arange",
    "ConstantOfShape": "full",
    "Squeeze": "squeeze",
    "Unsqueeze": "unsqueeze",
    "Resize": "interpolate",
    "TopK": "topk",
    "OneHot": "one_hot",
    "NonZero": "nonzero",
    "Split": "split",
    "Compress": "index_select",
    "GatherND": "getitem",
    "Gather": "getitem",
}
