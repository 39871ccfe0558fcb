import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, depth=3):
        super().__init__()
        self.blocks = nn.ModuleList()  # filled below
        for _ in range(depth):
            self.blocks.append(nn.Linear(4, 4))
        self.heads = nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2)])
        self.gain = nn.Parameter(torch.ones(4, requires_grad=True))

    def forward(self, x):
        for block in self.blocks:
            x = block(x).relu()
        return sum(head(x * self.gain) for head in self.heads)
