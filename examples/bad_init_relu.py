"""Thirty ReLU layers with weights from N(0, 1): every layer multiplies the signal by about sqrt(width / 2)."""

import torch.nn.functional as F
from torch import nn


class BadInitReLU(nn.Module):
    def __init__(self, n_in=64, width=64, depth=30, n_classes=10):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(n_in if i == 0 else width, width) for i in range(depth))
        self.head = nn.Linear(width, n_classes)
        for layer in [*self.layers, self.head]:
            nn.init.normal_(layer.weight, 0.0, 1.0)
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.head(x)
