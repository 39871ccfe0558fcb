"""Experts kept in a plain list: no optimiser ever sees them."""

import torch
from torch import nn


class Mixture(nn.Module):
    def __init__(self, features=14, width=24, classes=4, experts=3):
        super().__init__()
        self.gate = nn.Linear(features, experts)
        self.experts = [nn.Sequential(nn.Linear(features, width), nn.ReLU()) for _ in range(experts)]
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        weight = torch.softmax(self.gate(x), dim=-1)
        mixed = torch.stack([expert(x) for expert in self.experts], dim=1)
        return self.head((weight.unsqueeze(-1) * mixed).sum(1))
