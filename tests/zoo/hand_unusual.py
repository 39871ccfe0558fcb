"""Nets with inputs of another form: a dict, a graph."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hand import net
from torch import nn


@net(**{"batch.image": "float32:4", "batch.text": "int64:2"})
class DictInOut(nn.Module):
    def __init__(self):
        super().__init__()
        self.vision = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        self.words = nn.EmbeddingBag(30, 8)
        self.head = nn.Linear(16, 4)

    def forward(self, batch):
        seen = self.vision(batch["image"]).flatten(1)
        read = self.words(batch["text"])
        joined = torch.cat((seen, read), dim=1)
        return {"logits": self.head(joined), "features": joined}


@net(x="float32:2", edge_index="int64:2")
class GCNScatter(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.second = nn.Linear(8, 2)

    def forward(self, x, edge_index):
        source, target = edge_index
        ones = torch.ones_like(source, dtype=x.dtype)
        degree = torch.zeros(x.size(0)).scatter_add_(0, source, ones).clamp(min=1)
        weight = degree.rsqrt()[source] * degree.rsqrt()[target]
        h = self.first(x)
        out = torch.zeros_like(h).index_add_(0, target, h[source] * weight.unsqueeze(-1))
        return F.log_softmax(self.second(out.relu()), dim=1)
