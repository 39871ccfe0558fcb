import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, sizes=(4, 8, 8, 8)):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))

    def forward(self, x):
        for layer in self.layers:
            y = torch.tanh(layer(x))
            x = x + y if x.shape == y.shape else y
        return x
