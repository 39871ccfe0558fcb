"""A deep tanh autoencoder with weights of standard deviation 0.01."""

import torch
from torch import nn


class Compress(nn.Module):
    def __init__(self, pixels=144, widths=(96, 64, 32, 16, 32, 64, 96)):
        super().__init__()
        sizes = (pixels, *widths, pixels)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
        for layer in self.layers:
            nn.init.normal_(layer.weight, 0.0, 0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, picture):
        x = picture
        for layer in self.layers[:-1]:
            x = torch.tanh(layer(x))
        return self.layers[-1](x)
