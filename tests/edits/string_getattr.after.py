import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, act="relu"):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.act = getattr(torch, act)

    def forward(self, x):
        return self.act(self.fc(x))
