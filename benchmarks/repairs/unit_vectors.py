"""Embeddings divided by their length: that of an input without any active unit is 0."""

import torch
from torch import nn


class Matcher(nn.Module):
    def __init__(self, features=40, width=6, classes=4):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(features, 32), nn.ReLU(), nn.Linear(32, width), nn.ReLU())
        self.classes = nn.Linear(width, classes)

    def forward(self, x):
        e = self.net(x)
        e = e / torch.sqrt(torch.sum(e**2, dim=-1, keepdim=True))
        return self.classes(4 * e)
