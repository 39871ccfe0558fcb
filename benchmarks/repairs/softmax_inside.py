"""Softmax as the activation of hidden layers: the units of a layer share a sum of 1."""

from torch import nn


class Faults(nn.Sequential):
    def __init__(self, features=30, width=64, classes=5):
        super().__init__(
            nn.Linear(features, width),
            nn.Softmax(dim=-1),
            nn.Linear(width, width),
            nn.Softmax(dim=-1),
            nn.Linear(width, width),
            nn.Softmax(dim=-1),
            nn.Linear(width, classes),
        )
