"""Stand-ins, in Python, for torchvision's compiled operators where its wheel does not fit the installed torch."""

from __future__ import annotations

import importlib

import torch
from torch import Tensor

LIBRARY: list[torch.library.Library] = []


def install() -> None:
    """Define torchvision::nms and use the Python RoIAlign, once, where the compiled ones are missing."""
    if LIBRARY:
        return
    boxes = importlib.import_module("torchvision.ops.boxes")
    if importlib.import_module("torchvision.extension")._has_ops():
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.impl("nms", nms, "CPU")
    LIBRARY.append(library)
    boxes._assert_has_ops = lambda: None
    align = importlib.import_module("torchvision.ops.roi_align")
    align._roi_align = getattr(align._roi_align, "__wrapped__", align._roi_align)  # without torch.compile


def nms(dets: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Greedy non-maximum suppression over the 200 best boxes."""
    box_iou = importlib.import_module("torchvision.ops.boxes").box_iou
    order = scores.argsort(descending=True)[:200]
    overlaps = box_iou(dets[order], dets[order]) > threshold
    suppressed = torch.zeros(len(order), dtype=torch.bool)
    kept = []
    for place in range(len(order)):
        if not suppressed[place]:
            kept.append(place)
            suppressed |= overlaps[place]
    return order[torch.tensor(kept, dtype=torch.long)]
