import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        return x + self.proj(torch.relu(self.inner(x)))


class Net(nn.Module):
    def __init__(self, depth=9):
        super().__init__()
        for i in range(depth):
            self.add_module(f"block{i}", Block(4))

    def forward(self, x):
        for block in self.children():
            x = block(x)
        return x
